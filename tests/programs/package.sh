#!/usr/bin/env bash
# pip: a package that is installed into the folder from a wheel, and installed again.
#   package.sh make|check FOLDER SCRATCH      PYTHON is an interpreter with pip
set -euo pipefail
verb="$1" site="$2/site" scratch="$3"

install() { # FLAG...
  "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --find-links "$scratch" \
    --target "$site" "$@" forebay-sample
}

case "$verb" in
  make)
    "$PYTHON" "$(dirname "$0")/package.py" "$scratch"
    install
    install --upgrade
    env -u PYTHONDONTWRITEBYTECODE PYTHONPATH="$site" "$PYTHON" -m forebay_sample.cli
    ;;
  check)
    said="$(PYTHONPATH="$site" "$PYTHON" -c 'import forebay_sample as f; print(f.ANSWER, f.__file__)')"
    [ "$said" = "42 $site/forebay_sample/__init__.py" ]
    [ "$(stat -c %s "$site/forebay_sample/data.txt")" = 100000 ]
    ;;
esac
