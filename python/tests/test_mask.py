"""Pairs that are no negatives: marked as a loop marks them, and left out of the loss."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import VECTORS

from prosampler import Pipeline, connect
from prosampler.torch import HardNegativeDataset

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples/train"))

from training import info_nce

MASKED = {**VECTORS, "mask": {"same": ["label"]}, "walk": {"batch_size": 32, "negatives": 2}}


def marks(table: pa.Table, mini_batch) -> np.ndarray:
    """By a loop: which samples have the same label, [samples, B(1 + n)]."""
    labels = table["label"].to_pylist()
    ids = mini_batch.ids
    columns = [*ids, *(of[0] for of in mini_batch.negatives), *(of[1] for of in mini_batch.negatives)]
    expected = [[other is None or labels[id] == labels[other] for other in columns] for id in ids]
    return np.array(expected) & ~np.eye(len(ids), len(columns), dtype=bool)


def test_numpy_and_torch_have_the_marks_of_a_loop(table):
    for mini_batch in Pipeline(MASKED, data=table):
        expected = marks(table, mini_batch)
        assert np.from_dlpack(mini_batch.mask).dtype == bool
        assert np.array_equal(np.from_dlpack(mini_batch.mask), expected)
        columns = mini_batch.to_torch(["id", "mask"])
        assert columns["mask"].dtype == torch.bool
        assert np.array_equal(columns["mask"].numpy(), expected)
        assert pa.array(mini_batch.mask).to_pylist() == expected.tolist()
        assert mini_batch.column_names[-1] == "mask"


def test_a_loader_and_a_server_hand_it_on(table, serve):
    first = next(iter(Pipeline(MASKED, data=table)))
    item = next(iter(HardNegativeDataset(MASKED, data=table.select(["label", "vector"]))))
    server = serve(Pipeline(MASKED, data=table))
    with connect(server.uri) as stream:
        remote = next(stream)
    for found in (item["mask"], torch.from_dlpack(remote.mask)):
        assert np.array_equal(found.numpy(), marks(table, first))


def test_without_the_setting_there_is_none(table):
    own = table.append_column("mask", pa.array([[True]] * len(table)))
    assert next(iter(Pipeline(VECTORS, data=own))).mask is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_info_nce_leaves_marked_pairs_out(share):
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.nn.functional.normalize(torch.randn(12, 5, generator=generator), dim=1) for _ in range(2))
    half = (torch.rand(12, 12, generator=generator) < share).triu(1)
    mask = half | half.T
    by_loop = []
    for x, y in ((a, b), (b, a)):
        for i in range(12):
            scores = torch.stack([x[i] @ y[j] / 0.07 for j in range(12) if j == i or not mask[i, j]])
            by_loop.append(torch.logsumexp(scores, 0) - x[i] @ y[i] / 0.07)
    assert torch.allclose(info_nce(a, b, 0.07, mask), torch.stack(by_loop).mean(), atol=1e-6)
    if share == 0.0:
        assert torch.equal(info_nce(a, b, 0.07, mask), info_nce(a, b, 0.07))
