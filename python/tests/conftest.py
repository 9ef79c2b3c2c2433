"""Small data for all tests: vectors in clusters, which need no model, and definitions of WordNet."""

import os
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Several processes share few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
GLOSSES = ROOT / "data/wordnet/glosses.parquet"
MODEL = ROOT / "data/models/gloss-encoder/model.onnx"

#: Settings for small data.
SMALL = {
    "graph": {"candidates": 200, "neighbors": 10},
    "walk": {"batch_size": 32, "restart_probability": 0.3},
    "compute": {"threads": 2},
}


def vectors(rows: int, dimension: int = 16, seed: int = 0) -> pa.Table:
    """``id``, ``label`` (the cluster), ``text`` and ``vector``: points around one center a label."""
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 10, rows)
    centers = generator.normal(size=(10, dimension))
    points = (centers[label] + 0.3 * generator.normal(size=(rows, dimension))).astype(np.float32)
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "label": pa.array(label.astype(np.int32)),
            "text": [f"text {i}" for i in range(rows)],
            "vector": pa.FixedSizeListArray.from_arrays(points.reshape(-1), dimension),
        }
    )


@pytest.fixture(scope="session")
def table() -> pa.Table:
    return vectors(1000)


@pytest.fixture(scope="session")
def glosses() -> pa.Table:
    """2,000 definitions with their labels."""
    return pq.read_table(GLOSSES, columns=["synset", "label", "words", "definition"]).slice(0, 2000)


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """The gloss encoder, where a test may change it."""
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((MODEL.parent / name).read_bytes())
    return tmp_path / "model.onnx"
