#!/usr/bin/env bash
# Cargo: a small crate that is built, changed, built again, tested and run.
#   crate.sh make|check FOLDER SCRATCH
set -euo pipefail
verb="$1" folder="$2/small"
export CARGO_BUILD_JOBS=2 CARGO_TERM_COLOR=never

built() { # WORD   what the program says
  cargo build --offline --quiet
  [ "$(target/debug/small)" = "$1" ]
}

case "$verb" in
  make)
    mkdir -p "$folder/src"
    cd "$folder"
    printf '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n\n[workspace]\n' >Cargo.toml
    printf 'mod word;\n\nfn main() {\n    println!("{}", word::word());\n}\n' >src/main.rs
    for word in one two three; do
      printf 'pub fn word() -> &%sstatic str {\n    "%s"\n}\n' "'" "$word" >src/word.rs
      built "$word"
    done
    built three
    cargo test --offline --quiet >/dev/null
    cargo clean --quiet
    built three
    rm -rf target/debug/incremental
    ;;
  check)
    # The copy of a bucket has no modes, and building in place would change the folder.
    elsewhere="$(mktemp -d "$3/target.XXXX")"
    install -m 755 "$folder/target/debug/small" "$elsewhere/small"
    [ "$("$elsewhere/small")" = three ]
    cargo build --offline --quiet --manifest-path "$folder/Cargo.toml" --target-dir "$elsewhere"
    ;;
esac
