#!/usr/bin/env bash
# Makes an empty Python environment with pip in the given folder, or says what to install if the system's Python cannot.
set -euo pipefail

# The module alone is not enough: Debian's may lack what installs pip in an environment.
if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo "python3 with venv is needed to make the environment $1 (Debian: apt-get install python3-venv)" >&2
    exit 1
fi
rm -rf "$1"
python3 -m venv "$1"
