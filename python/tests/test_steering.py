"""What steers a run from outside: losses, texts beyond the pairs, a guide, and a shard of the rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import VECTORS, vectors

import prosampler
from prosampler import Pipeline


def test_pushed_losses_choose_where_walks_start(table):
    import torch

    with Pipeline(VECTORS, data=table, stream={"epochs": 4, "prefetch": 1}).start() as stream:
        handle = stream.handle
        next(stream)
        odd = torch.arange(1000) % 2
        handle.push_losses(range(1000), odd.float().requires_grad_())
        assert not handle.refresh_now().skipped
        # The rest of the epoch, whose starts were other ones.
        starts = [mini_batch.ids[0] for mini_batch in stream if mini_batch.epoch == 1]
        assert sum(start % 2 for start in starts[:8]) >= 6
        with pytest.raises(prosampler.ArgumentError, match=r"\(2,\)"):
            handle.push_losses([1, 2], np.ones((2, 1)))
        with pytest.raises(prosampler.ArgumentError, match="1000 samples"):
            handle.push_losses([5000], np.ones(1))
        with pytest.raises(prosampler.EncodeError, match="not finite"):
            handle.push_losses([1], np.array([np.inf]))


def test_texts_beyond_the_pairs_are_explicit_negatives(tmp_path):
    generator = np.random.default_rng(5)

    def column(rows):
        values = pa.array(generator.normal(size=rows * 16).astype(np.float32))
        return pa.FixedSizeListArray.from_arrays(values, 16)

    pairs = pa.table({"query": column(200), "passage": column(200)})
    passages = pa.table({"passage": column(100)})
    pq.write_table(passages, tmp_path / "passages.parquet")
    drawn = []
    for corpus in (str(tmp_path / "passages.parquet"), passages):
        names = {"anchor": "query", "positive": "passage", "corpus": corpus}
        walk = {"batch_size": 20, "negatives": 1}
        pipeline = Pipeline(data=pairs, pairs=names, encode={"feature": "vector"}, walk=walk)
        with pipeline.start() as stream:
            negatives = [id for mini_batch in stream for of_one in mini_batch.negatives for id in of_one]
        assert len(negatives) == 200
        assert 0 < sum(id >= 200 for id in negatives) < 200
        drawn.append(negatives)
    assert drawn[0] == drawn[1]
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        Pipeline(data=pairs, pairs={**names, "corpus": 5})


def test_a_guide_judges_from_the_first_mini_batch():
    table = vectors(300)
    teacher = np.random.default_rng(6).normal(size=(300, 4)).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(teacher.ravel()), 4)
    guards = {"max_similarity": 0.8, "guide": {"column": "teacher"}}
    settings = {**VECTORS, "walk": {"batch_size": 6, "warm_up": {"steps": 10}}}
    unit = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    with Pipeline(settings, data=table.append_column("teacher", column), guards=guards).start() as stream:
        for mini_batch in stream:
            near = unit[mini_batch.ids] @ unit[mini_batch.ids].T
            assert near[~np.eye(len(near), dtype=bool)].max() <= 0.8 + 1e-5


def test_shards_of_a_table_are_all_of_it(table):
    shards = []
    for index in range(3):
        pipeline = Pipeline(VECTORS, data=table, shard={"by": "id", "index": index, "count": 3}, stream={"epochs": 2})
        with pipeline.start() as stream:
            epochs = [[], []]
            for mini_batch in stream:
                epochs[mini_batch.epoch] += pa.record_batch(mini_batch)["id"].to_pylist()
        assert len(epochs[0]) == len(epochs[1])
        shards.append(epochs)
    assert len({len(epoch) for epochs in shards for epoch in epochs}) == 1
    assert sorted({id for epochs in shards for epoch in epochs for id in epoch}) == list(range(1000))
