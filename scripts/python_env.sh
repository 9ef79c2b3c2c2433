#!/usr/bin/env bash
# Makes the environment .python/ where it is missing, with what the Python package's tests need: about 3 GB the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.python/bin/python
[ -x "$python" ] || ./scripts/venv.sh .python
# Dependency groups need pip 25.1.
"$python" -I -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
"$python" -I -m pip install --quiet --disable-pip-version-check --group test
