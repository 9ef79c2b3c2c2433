#!/usr/bin/env bash
# What ranks share and what serving costs, against pyarrow, MosaicML Streaming and PyTorch's DataLoader.
# Sets up its own Python environment under target/ (about 8 GB, once; shared with store.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$PWD/target/bench
python=$scratch/store-venv/bin/python
pip_install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
if [ ! -f "$scratch/ranks/ready" ]; then
    mkdir -p "$scratch/ranks"
    [ -x "$python" ] || python3 -m venv "$scratch/store-venv" || echo "ranks: no Python environment" >&2
    if pip_install -r benches/peers/ranks.txt; then
        touch "$scratch/ranks/ready"
    else
        # Those that can be had; the run names the others.
        while read -r requirement; do pip_install "$requirement" || true; done <benches/peers/ranks.txt
    fi
fi
PROSAMPLER_BENCH=$scratch cargo bench --quiet --features serve --bench ranks -- "$@"
