# Sourced by the other scripts, not run: where things are kept, and how a missing one is named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
forebay_cache="${XDG_CACHE_HOME:-$HOME/.cache}/forebay"
export PATH="$forebay_cache/tools/bin:$PATH"
# Where the tests look for the servers they start.
export FOREBAY_RIGS="${FOREBAY_RIGS:-$forebay_cache/rigs}"
# Debian's own interpreter: python3-torch is built for it, and a version manager may shadow the name.
debian_python=/usr/bin/python3

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# The tests and the demo mount for real. True where the kernel lets us.
fuse_device() {
  [ -c /dev/fuse ] || modprobe fuse 2>/dev/null || true
  [ -r /dev/fuse ] && [ -w /dev/fuse ]
}

# FILE PATTERN: a version or a name, from where the tests pin it.
pinned() { grep -ohE "$2" "crates/testkit/$1" | sed 1q; }
