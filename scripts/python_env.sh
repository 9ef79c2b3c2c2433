#!/usr/bin/env bash
# Makes the environment .python/ if it is missing, and installs what the Python package's tests need. The first run
# fetches about 3 GB.
set -euo pipefail
cd "$(dirname "$0")/.."

python=.python/bin/python
[ -x "$python" ] || ./scripts/venv.sh .python
# Dependency groups need pip 25.1.
"$python" -I -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
"$python" -I -m pip install --quiet --disable-pip-version-check --group test
