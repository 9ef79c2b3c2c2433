#!/usr/bin/env bash
# Installs moto, an S3 server for tests, into an environment of its own, .moto/, unless it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

version=5.2.5
target=.moto
[ -x "$target/bin/python" ] && [ "$(cat "$target/version" 2>/dev/null)" = "$version" ] && exit
./scripts/venv.sh "$target"
"$target/bin/python" -I -m pip install --quiet --disable-pip-version-check "moto[server]==$version"
echo "$version" >"$target/version"
