#!/usr/bin/env bash
# Puts moto, an S3 server for tests, into .moto/, by pip. Does nothing where it is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

version=5.2.5
target=.moto
[ "$(cat "$target/version" 2>/dev/null)" = "$version" ] && exit
rm -rf "$target"
python3 -m pip install --quiet --disable-pip-version-check --target "$target" "moto[server]==$version"
echo "$version" >"$target/version"
