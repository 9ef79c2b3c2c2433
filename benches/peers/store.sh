#!/usr/bin/env bash
# Building a store and gathering from it, against Parquet, Hugging Face datasets, Lance and MosaicML Streaming.
# Sets up its own Python environment and data under target/ (about 8 GB and, for a million rows, 17 GB, once).
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$PWD/target/bench
python=$scratch/store-venv/bin/python
if [ ! -f "$scratch/store-venv/ready" ]; then
    [ -x "$python" ] || python3 -m venv "$scratch/store-venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r benches/peers/store.txt
    touch "$scratch/store-venv/ready"
fi
PROSAMPLER_BENCH=$scratch cargo bench --quiet --bench store -- "$@"
