#!/usr/bin/env bash
# Mining hard negatives against sentence-transformers, by its own product and by faiss.
# Sets up its own Python environment under target/ (about 5 GB, once) and builds the package into it.
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$PWD/target/bench
python=$scratch/mining-venv/bin/python
if [ ! -f "$scratch/mining-ready" ]; then
    mkdir -p "$scratch"
    [ -x "$python" ] || python3 -m venv "$scratch/mining-venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r benches/peers/mining.txt
    touch "$scratch/mining-ready"
fi
VIRTUAL_ENV=$scratch/mining-venv "$scratch/mining-venv/bin/maturin" develop --release --quiet
"$python" benches/peers/mining.py "$@"
