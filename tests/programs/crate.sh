#!/usr/bin/env bash
# Cargo: a crate without dependencies whose sources and build lie in the folder; built, run, changed.
#   crate.sh make|check FOLDER SCRATCH
set -euo pipefail
verb="$1" crate="$2/crate" scratch="$3"

build() { cargo build --offline --manifest-path "$crate/Cargo.toml" --target-dir "$crate/target" "$@" 2>&1; }

case "$verb" in
  make)
    mkdir -p "$crate/src"
    cat >"$crate/Cargo.toml" <<'END'
[package]
name = "sample"
version = "0.1.0"
edition = "2021"

[workspace]
END
    echo 'fn main() { println!("cargo::rustc-env=BUILT=yes"); }' >"$crate/build.rs"
    echo 'pub fn answer() -> u32 { 41 }' >"$crate/src/lib.rs"
    echo 'fn main() { println!("{} {}", sample::answer(), env!("BUILT")); }' >"$crate/src/main.rs"
    build
    [ "$("$crate/target/debug/sample")" = "41 yes" ]
    # What is built is known to be: its times are those of the sources and their results.
    again="$(build --verbose)"
    grep -q 'Fresh sample' <<<"$again" || { echo "$again"; exit 1; }
    ! grep -q Compiling <<<"$again" || { echo "$again"; exit 1; }
    echo 'pub fn answer() -> u32 { 42 }' >"$crate/src/lib.rs"
    again="$(build)"
    grep -q 'Compiling sample' <<<"$again" || { echo "$again"; exit 1; }
    [ "$("$crate/target/debug/sample")" = "42 yes" ]
    ;;
  check)
    # A copy by the storage's client has no permission to be run.
    install -m 755 "$crate/target/debug/sample" "$scratch/sample"
    [ "$("$scratch/sample")" = "42 yes" ]
    ;;
esac
