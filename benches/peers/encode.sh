#!/usr/bin/env bash
# Embedding speed on one model and the same texts: ours, raw ONNX Runtime, Python onnxruntime, sentence-transformers.
# Sets up its own Python environment under target/ (about 4 GB, once).
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$PWD/target/bench
python=$scratch/venv/bin/python
if [ ! -f "$scratch/ready" ]; then
    mkdir -p "$scratch"
    python3 -m venv "$scratch/venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
    "$python" benches/peers/encode.py prepare "$scratch"
    touch "$scratch/ready"
fi
PROSAMPLER_BENCH=$scratch cargo bench --quiet --bench encode -- "$@"
