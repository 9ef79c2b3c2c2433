"""Small data for all tests: vectors in clusters, which need no model, and definitions of WordNet."""

import os
import random
import signal
import socket
import time
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

#: The same, with the vectors that are in the data.
VECTORS = {**SMALL, "encode": {"feature": "vector", "column": "vector"}}


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


def exit_code(child: int) -> int:
    """Waits for a forked process, at most a minute."""
    end = time.monotonic() + 60
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    return os.waitstatus_to_exitcode(status[1])


def free_port() -> int:
    """A free port below those that systems give by themselves, so that nobody gets it before it is used."""
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port of 100 is free")


@pytest.fixture(scope="session")
def table() -> pa.Table:
    return vectors(1000)


@pytest.fixture(scope="session")
def glosses() -> pa.Table:
    """2,000 definitions with their labels."""
    return pq.read_table(GLOSSES, columns=["synset", "label", "words", "definition"]).slice(0, 2000)


@pytest.fixture
def serve():
    """A function that serves a pipeline, until the test ends."""
    servers = []

    def start(pipeline, **options):
        servers.append(pipeline.serve("127.0.0.1:0", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """The gloss encoder, where a test may change it."""
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes((MODEL.parent / name).read_bytes())
    return tmp_path / "model.onnx"


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained BERT of 0.3 M weights with the gloss encoder's tokenizer, as Hugging Face saves it."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    special = {
        name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    }
    file = str(MODEL.with_name("tokenizer.json"))
    PreTrainedTokenizerFast(tokenizer_file=file, model_max_length=64, **special).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=8192, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path):
    """A ``SentenceTransformer`` over it."""
    from sentence_transformers import SentenceTransformer, models

    transformer = models.Transformer(str(tiny_folder), max_seq_length=32)
    return SentenceTransformer(modules=[transformer, models.Pooling(32)], device="cpu")


@pytest.fixture
def pairs(glosses: pa.Table):
    """500 pairs: a synset's words and its definition."""
    from datasets import Dataset

    rows = glosses.slice(0, 500)
    return Dataset.from_dict({"anchor": rows["definition"].to_pylist(), "positive": rows["words"].to_pylist()})
