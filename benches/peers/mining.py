"""Hard negatives of N pairs, ours against ``sentence_transformers.util.mine_hard_negatives``, with and without faiss.

Embeddings are given to all, so that what is measured is the search and the making of rows. Vectors are random, in
clusters of a hundred; a positive lies between its anchor and others of its cluster. All must find the same rows.

    mining.py [--rows N…] [--dimension D] [--rounds R]
"""

import argparse
import contextlib
import io
import statistics
import time

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives as theirs

from prosampler.mining import Embeddings, mine_hard_negatives

#: What NV-Retriever does, and what is mined by default.
SETTINGS = {
    "margin": {"relative_margin": 0.05, "num_negatives": 5, "output_format": "n-tuple"},
    "default": {"num_negatives": 3},
}


def pairs(rows, dimension):
    generator = np.random.default_rng(7)
    centers = generator.normal(size=(rows // 100, dimension)).astype(np.float32)
    label = generator.integers(0, len(centers), rows)
    noise = [generator.normal(size=(rows, dimension)).astype(np.float32) for _ in range(2)]
    anchors = centers[label] + noise[0]
    positives = centers[label] + 0.8 * noise[0] + 0.6 * noise[1]
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (anchors, positives)]


class Model:
    """Gives vectors that are there."""

    device = torch.device("cpu")
    similarity_fn_name = "cosine"

    def __init__(self, anchors, positives):
        self.encode_query, self.encode_document = (lambda texts, **_: anchors), (lambda texts, **_: positives)
        self.dimension = anchors.shape[1]

    def get_embedding_dimension(self):
        return self.dimension

    def similarity(self, a, b):
        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a, b):
        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(1)


def timed(work):
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = work()
    return time.perf_counter() - begun, made


def agreement(a, b):
    """The share of rows that are the same."""
    a, b = ({tuple(row.values()) for row in dataset.to_list()} for dataset in (a, b))
    return len(a & b) / max(len(a), len(b))


def measure(rows, dimension, rounds):
    anchors, positives = pairs(rows, dimension)
    data = Dataset.from_dict({"anchor": [f"a {i}" for i in range(rows)], "positive": [f"p {i}" for i in range(rows)]})
    model, given = Model(anchors, positives), Embeddings(anchors, positives)
    for name, settings in SETTINGS.items():
        ways = {
            "ours": lambda settings=settings: mine_hard_negatives(data, given, **settings),
            "theirs": lambda settings=settings: theirs(data, model, **settings),
            "faiss": lambda settings=settings: theirs(data, model, use_faiss=True, **settings),
        }
        seconds = {way: [] for way in ways}
        made = {}
        for _ in range(rounds):
            for way, work in ways.items():
                taken, made[way] = timed(work)
                seconds[way].append(taken)
        median = {way: statistics.median(times) for way, times in seconds.items()}
        shares = {way: agreement(made["ours"], made[way]) for way in ("theirs", "faiss")}
        print(
            f"{rows:,} pairs, {name}: ours {median['ours']:.2f} s, theirs {median['theirs']:.1f} s, "
            f"theirs with faiss {median['faiss']:.1f} s; same rows {shares['theirs']:.5f}, {shares['faiss']:.5f}"
        )
        for way in ("theirs", "faiss"):
            print(f"figure mining.{name}_{rows}.vs_{way} {median[way] / median['ours']:.2f} ratio", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    for rows in arguments.rows:
        measure(rows, arguments.dimension, arguments.rounds)
