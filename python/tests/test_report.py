"""The numbers of ``prosampler report``, computed anew with numpy from the vectors and the ids of the mini-batches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

PIPELINE, COUNT = "pipelines/precomputed.toml", 20


def prosampler(*arguments):
    command = Path(sys.executable).with_name("prosampler")
    run = subprocess.run([command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def report():
    return json.loads(prosampler("report", PIPELINE, "--json", "--mini-batches", str(COUNT)))


@pytest.fixture(scope="module")
def samples():
    """Vectors of unit length as the run keeps them, in 16 bits, and labels."""
    table = pq.read_table(ROOT / "data/fashion-mnist/embeddings.parquet")
    vectors = np.stack(table["embedding"].to_numpy()).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float64), np.array(table["label"].to_pylist())


@pytest.fixture(scope="module")
def mini_batches():
    """Ids of the same mini-batches; they come from the first graph, since the first refresh is due after them."""
    lines = prosampler("run", PIPELINE, "--json", "--quiet").splitlines()
    return [json.loads(line)["ids"] for line in lines[:COUNT]]


def test_hardness(report, samples, mini_batches):
    (vectors, labels), told = samples, report["hardness"][0]
    pairs = [(ids, vectors[ids] @ vectors[ids].T, ~np.eye(len(ids), dtype=bool)) for ids in mini_batches]
    means = [similarity[others].mean() for _, similarity, others in pairs]
    assert told["similarity"] == pytest.approx(means, abs=1e-4)
    assert told["mean_similarity"] == pytest.approx(np.mean(means), abs=1e-4)

    everyone = np.concatenate([similarity[others] for _, similarity, others in pairs])
    same = np.concatenate([(labels[ids][:, None] == labels[ids])[others] for ids, _, others in pairs])
    assert told["same_label"] == pytest.approx(same.mean(), abs=1e-12)
    assert told["near_copies"] == pytest.approx((everyone >= 0.999).mean(), abs=2 / len(everyone))
    # The estimate says its bound to three digits.
    bound = float(report["estimate"].rsplit("(", 1)[1].rstrip(")"))
    shares = [(everyone > bound + error).mean() for error in (0.0006, -0.0006)]
    assert shares[0] <= told["likely_false"] <= shares[1]
    assert report["audit"]["pairs"] == len(everyone)
    worst = [(pair["a"], pair["b"]) for pair in report["audit"]["worst"]]
    told = [pair["similarity"] for pair in report["audit"]["worst"]]
    assert told == pytest.approx([vectors[a] @ vectors[b] for a, b in worst], abs=1e-3)
    assert told[0] == pytest.approx(everyone.max(), abs=1e-3)


def test_uniform_mini_batches_are_like_all_pairs(report, samples):
    vectors, labels = samples
    told = next(of for of in report["hardness"] if of["sampler"] == "uniform")
    total, count = vectors.sum(axis=0), len(vectors)
    mean = (total @ total - (vectors**2).sum()) / (count * (count - 1))
    # Means of 20 mini-batches of 128 scatter by about this.
    assert told["mean_similarity"] == pytest.approx(mean, abs=0.02)
    assert told["same_label"] == pytest.approx(0.1, abs=0.01)
    assert len(labels) == report["data"]["samples"]


def test_bound(report, samples):
    """The median similarity of a sample to its nearest, of which the report looks at a thousand."""
    vectors, _ = samples
    rows = np.random.default_rng(0).choice(len(vectors), 2000, replace=False)
    similarity = vectors[rows] @ vectors.T
    similarity[np.arange(len(rows)), rows] = -1
    median = np.median(similarity.max(axis=1))
    bound = float(report["estimate"].rsplit("(", 1)[1].rstrip(")"))
    assert bound == pytest.approx(median, abs=0.002)
