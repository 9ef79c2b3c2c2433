#!/usr/bin/env bash
# Graph building against PyTorch, faiss, usearch, pynndescent, hnsw_rs and instant-distance.
# Sets up its own Python environment, Rust peers and data under target/ (about 8 GB, once; shared with encode.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$PWD/target/bench
python=$scratch/venv/bin/python
if [ ! -f "$scratch/graph/ready" ]; then
    mkdir -p "$scratch/graph"
    [ -x "$python" ] || python3 -m venv "$scratch/venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r benches/peers/requirements.txt -r benches/peers/graph.txt
    cargo build --quiet --release --locked --manifest-path benches/peers/rust/Cargo.toml --target-dir "$scratch/rust"
    [ -f "$scratch/graph/minilm.f32" ] || "$python" benches/peers/graph_data.py "$scratch"
    touch "$scratch/graph/ready"
fi
PROSAMPLER_BENCH=$scratch cargo bench --quiet --bench graph -- "$@"
