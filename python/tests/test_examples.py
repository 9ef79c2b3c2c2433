"""The trainers of examples/train run, each with every sampler in turn, on some of the shipped rows."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent.parent
TRAINERS = {
    "simclr": ("fashion-mnist/images.parquet", "random_walk"),
    "simcse": ("wordnet/glosses.parquet", "knn"),
    "graphcl": ("b3db/molecules.parquet", "uniform"),
}


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainer(trainer: str, tmp_path: Path) -> None:
    data, sampler = TRAINERS[trainer]
    table = pq.read_table(ROOT / "data" / data)
    rows = tmp_path / "rows.parquet"
    pq.write_table(table.take(pa.array(range(0, len(table), len(table) // 400))), rows)
    options = {
        "--data": rows,
        "--sampler": sampler,
        "--epochs": 2,
        "--batch": 32,
        "--candidates": 100,
        "--neighbors": 10,
        "--refresh-steps": 5,
        "--probe-steps": 10,
        "--threads": 1,
    }
    command = [
        sys.executable,
        ROOT / f"examples/train/{trainer}.py",
        *(str(part) for o in options.items() for part in o),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "untrained  kNN 0." in ran.stdout
    # A score after every ten steps, with what the mini-batches were like.
    assert ran.stdout.count("similarity ") >= 2, ran.stdout
