#!/usr/bin/env bash
# tar and rsync: a tree that is packed, unpacked and kept in step, with its modes and times.
#   archive.sh make|check FOLDER SCRATCH
set -euo pipefail
verb="$1" folder="$2" source="$3/source"

original() {
  mkdir -p "$source/deep/er/still" "$source/empty dir" "$source/ünï"
  for n in $(seq 40); do head -c $((n * 997)) /dev/urandom >"$source/deep/$n.bin"; done
  head -c 9000000 /dev/urandom >"$source/large.bin"
  : >"$source/ünï/nothing here"
  echo script >"$source/deep/er/run.sh"
  chmod 755 "$source/deep/er/run.sh"
  chmod 600 "$source/deep/7.bin"
  chmod 750 "$source/deep/er"
  find "$source" -depth -exec touch -d '2019-03-04 05:06:07' {} +
}

quiet() { # COMMAND...   must have nothing to say
  local said
  said="$("$@" 2>&1)" || { echo "$* failed: $said"; return 1; }
  [ -z "$said" ] || { echo "$* said: $said"; return 1; }
}

in_step() { # FLAG...
  rsync -a "$@" "$source/" "$folder/synced/"
  quiet rsync -a --itemize-changes "$source/" "$folder/synced/"
  quiet rsync -a --itemize-changes --checksum "$source/" "$folder/synced/"
}

case "$verb" in
  make)
    [ -e "$source" ] || original
    mkdir "$folder/out"
    tar -C "$source" -cf "$folder/whole.tar" .
    quiet tar -xpf "$folder/whole.tar" -C "$folder/out"
    quiet tar --compare -f "$folder/whole.tar" -C "$folder/out"
    tar -C "$source" -czf "$folder/whole.tar.gz" .
    tar -C "$source" -rf "$folder/whole.tar" ./large.bin
    in_step
    echo changed >>"$source/deep/3.bin"
    printf 'in the middle' | dd of="$source/large.bin" bs=1 seek=4000000 conv=notrunc status=none
    rm -f "$source/deep/40.bin"
    in_step --inplace --no-whole-file --delete
    echo "at the end" >>"$source/large.bin"
    rsync --append-verify --times "$source/large.bin" "$folder/synced/large.bin"
    in_step
    ;;
  check)
    quiet diff -r "$source" "$folder/synced"
    for archive in whole.tar whole.tar.gz; do
      into="$(mktemp -d "$3/unpacked.XXXX")"
      tar -xf "$folder/$archive" -C "$into"
      quiet diff -r "$into" "$folder/out"
      rm -rf "$into"
    done
    ;;
esac
