#!/usr/bin/env bash
# Git: a repository that is cloned, committed to, merged, packed and pushed from.
#   git.sh make|check FOLDER SCRATCH
set -euo pipefail
verb="$1" clone="$2/clone" source="$3/source"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_OPTIONAL_LOCKS=0
for who in AUTHOR COMMITTER; do export "GIT_${who}_NAME=Test" "GIT_${who}_EMAIL=test@localhost"; done

commit() { # MESSAGE
  git add --all
  git commit --quiet --message "$1"
}

original() {
  git init --quiet --initial-branch main "$source"
  cd "$source"
  for dir in a b/c d/e/f; do
    mkdir -p "$dir"
    for n in $(seq 12); do seq "$n" $((n * 40)) >"$dir/file $n.txt"; done
  done
  commit "first"
  for n in $(seq 6); do date -d "@$n" >>a/"file $n.txt"; commit "change $n"; done
  head -c 3000000 /dev/zero | tr '\0' 'x' >large.txt
  commit "a large file"
  git tag v1
}

case "$verb" in
  make)
    [ -e "$source" ] || original
    git clone --quiet --no-local "$source" "$clone"
    cd "$clone"
    git checkout --quiet -b topic
    git mv a/"file 1.txt" moved.txt
    echo topic >>b/c/"file 2.txt"
    commit "a topic"
    git checkout --quiet main
    git rm --quiet -r d
    commit "less"
    git merge --quiet --no-edit topic
    git fsck --full --strict
    git gc --quiet --aggressive --prune=now
    git reset --quiet --hard HEAD~1
    git reset --quiet --hard ORIG_HEAD
    echo more >>moved.txt
    commit "after the packing"
    git push --quiet --force origin main:refs/heads/pushed
    [ "$(git -C "$source" rev-parse pushed)" = "$(git rev-parse main)" ]
    ;;
  check)
    cd "$clone"
    git fsck --full --strict --no-dangling --no-progress
    [ -z "$(git -c core.fileMode=false status --porcelain)" ]
    [ "$(git rev-list --count main)" = 12 ]
    [ "$(tail -1 moved.txt)" = more ]
    [ ! -e d ] && [ "$(stat -c %s large.txt)" = 3000000 ]
    ;;
esac
