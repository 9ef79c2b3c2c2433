"""Embedding tables without a run."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import VECTORS

import prosampler
from prosampler import Embedder, Pipeline


def stacked(column):
    return np.stack(column.to_numpy(zero_copy_only=False))


def test_vectors_are_those_of_a_run(table):
    """Similarities of its graph are their products."""
    vectors = stacked(pa.record_batch(Embedder(VECTORS).embed(table))["embedding"])
    with Pipeline(VECTORS, data=table).start() as stream:
        for sample in (0, 7, 999):
            for neighbor, similarity in stream.handle.neighbors(sample):
                assert vectors[sample] @ vectors[neighbor] == pytest.approx(similarity, abs=1e-5)


def test_rows_that_cannot_be_embedded_are_null(table):
    holes = table.set_column(3, "vector", pa.array([None, *table["vector"].to_pylist()[1:]], table["vector"].type))
    encode = {"feature": "vector", "column": "vector"}
    embedder = Embedder(encode={**encode, "on_bad_sample": "skip"})
    made = pa.record_batch(embedder.embed(holes))
    assert made["embedding"].null_count == 1
    unit = stacked(table["vector"])[1:]
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(stacked(made["embedding"].drop_null()), unit, atol=1e-6)
    with pytest.raises(prosampler.SourceError, match="`vector` is null at sample 0"):
        Embedder(encode=encode).embed(holes)
    pairs = Embedder(encode={"feature": "vector"}, pairs={"anchor": "vector", "positive": "again"})
    both = table.append_column("again", table["vector"])
    assert pa.record_batch(pairs.embed(both))["pair_similarity"].to_pylist() == pytest.approx([1] * len(table))
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        embedder.embed([1])
    with pytest.raises(prosampler.ConfigError, match=r"encode\.colum"):
        Embedder(encode={"colum": "vector"})
