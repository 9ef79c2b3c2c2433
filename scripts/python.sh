#!/usr/bin/env bash
# Builds the Python package into the environment .python/ and checks its style, its types and its tests. Arguments are
# passed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/python_env.sh
python=.python/bin/python
VIRTUAL_ENV="$PWD/.python" PIP_QUIET=1 .python/bin/maturin develop --quiet --features checkout

.python/bin/ruff check --quiet python
.python/bin/ruff format --quiet --check python
.python/bin/ruff check --quiet examples/train
.python/bin/ruff format --quiet --check examples/train
"$python" -m mypy --no-error-summary
"$python" -m mypy.stubtest prosampler._prosampler
"$python" -m pytest --quiet --numprocesses 2 --dist worksteal "$@"
