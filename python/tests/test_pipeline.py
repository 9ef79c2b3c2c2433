"""Settings in, mini-batches out."""

import asyncio
import logging
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import GLOSSES, MODEL, ROOT, SMALL, VECTORS, vectors

import prosampler
from prosampler import Pipeline


def start(table, **settings):
    return Pipeline(VECTORS, data=table, **settings).start()


def test_an_epoch_has_every_sample_once_and_is_harder_than_chance(table):
    with start(table) as stream:
        assert (stream.samples, stream.mini_batches_per_epoch) == (1000, 32)
        assert stream.column_names == ["id", "label", "text", "vector"]
        seen, same = [], 0.0
        for step, mini_batch in enumerate(stream):
            assert (mini_batch.step, mini_batch.epoch, mini_batch.staleness) == (step, 0, step)
            assert (mini_batch.model_version, mini_batch.graph_version) == (1, 1)
            seen += mini_batch.ids
            rows = pa.record_batch(mini_batch)
            assert rows["id"].to_pylist() == mini_batch.ids
            labels = rows["label"].to_pylist()
            same += sum(labels.count(label) for label in labels) / len(labels) ** 2 / 32
        assert sorted(seen) == list(range(1000))
        # Ten labels: a tenth by chance.
        assert same > 0.2
        with pytest.raises(StopIteration):
            next(stream)


def test_a_pipeline_file_with_settings_over_it(glosses):
    pipeline = Pipeline(ROOT / "pipelines/text.toml", data=glosses, graph={"candidates": 100}, walk={"batch_size": 50})
    assert pipeline.batch_size == 50
    mini_batches = list(pipeline)
    assert len(mini_batches) == 40
    assert 0 < mini_batches[0].similarity < 1


def test_text_from_files_through_the_installed_onnx_runtime():
    pipeline = Pipeline(
        source={"uri": [GLOSSES], "columns": ["definition"], "filter": "label = 'noun.plant'"},
        encode={"model": MODEL, "column": "definition"},
        **SMALL,
    )
    with pipeline.start(progress=True) as stream:
        mini_batch = next(stream)
        assert mini_batch.column_names == ["definition"]
        assert "noun.plant" in repr(pipeline)
        assert re.fullmatch(
            r"MiniBatch\(step 0, epoch 0, similarity 0\.\d+, .*32 rows: definition Utf8\)", repr(mini_batch)
        )
        assert re.match(
            r"<prosampler.Stream: [\d,]+ samples, \d+ mini-batches an epoch, epoch 0, step 1,", repr(stream)
        )
    assert repr(stream) == "<prosampler.Stream: closed>"
    with pytest.raises(prosampler.ClosedError):
        next(stream)


def test_all_faults_come_at_once_in_the_words_of_the_library():
    with pytest.raises(prosampler.ConfigError) as error:
        Pipeline({"graph": {"neighbours": 5}, "steam": {"prefetch": 1}}, walk={"batch_size": 1}, seed="many")
    message = str(error.value)
    assert message.startswith("5 faults in the settings:")
    for part in (
        "did you mean `neighbors`?",
        "did you mean `stream`?",
        "at least 2 samples",
        "source.uri: is required",
    ):
        assert part in message
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, prosampler.Error)


@pytest.mark.parametrize(
    ("make", "kind", "part"),
    [
        (lambda t: Pipeline("nowhere.toml"), prosampler.NotFoundError, "no such file: `nowhere.toml`"),
        (lambda t: start(t, walk={"batch_size": 2000}), prosampler.SourceError, "has 1000 rows, but 2000"),
        (
            lambda t: Pipeline(SMALL, data=t, encode={"feature": "vector", "column": "v"}).start(),
            prosampler.SourceError,
            "column `v` not found",
        ),
        (lambda t: Pipeline(SMALL, data=t).start(), prosampler.ConfigError, "encode.model: is required"),
        (lambda t: start(t, source={"columns": ["x"]}), prosampler.SourceError, "`x` not found in `data`; it has `id`"),
        (
            lambda t: Pipeline(
                SMALL,
                data=t,
                encode={"model": GLOSSES, "tokenizer": MODEL.with_name("tokenizer.json"), "column": "text"},
            ).start(),
            prosampler.Error,
            "glosses.parquet",
        ),
        (lambda t: Pipeline(SMALL, data=t, resume={"seed": 1}), None, None),
        (lambda t: Pipeline(SMALL, data=t, resume={"seed": 1}).start(), prosampler.StateError, "this is no state"),
        (lambda t: Pipeline(SMALL, data=[1, 2]), TypeError, "has no `__arrow_c_stream__`"),
        (lambda t: Pipeline(t), TypeError, "a table as data="),
        (lambda t: Pipeline(SMALL, data=t, source="a.parquet"), TypeError, "not both"),
        (lambda t: Pipeline(GLOSSES), prosampler.ConfigError, "give a pipeline file (TOML)"),
        (lambda t: start(t, graph={"neighbors": "many"}), prosampler.ConfigError, "expected a whole number"),
        (
            lambda t: Pipeline(SMALL, data=t, encode={"model": "no.onnx", "column": "text"}).start(),
            prosampler.NotFoundError,
            "no such file: `no.onnx`; give an ONNX model as `encode.model`",
        ),
        (lambda t: Pipeline(SMALL, data=t, source={"uri": object()}), TypeError, "setting `source.uri` is a object"),
    ],
)
def test_errors_name_the_thing(table, make, kind, part):
    if kind is None:
        make(table)
        return
    with pytest.raises(kind, match=re.escape(part)):
        make(table)


def test_settings_arrive_as_they_are():
    from prosampler.settings import lines

    settings = {"source": "a 'quoted\" ü\n.parquet", "graph": {"neighbors": 5, "precision": None}, "seed": 7}
    assert list(lines(settings)) == ['source.uri="a \'quoted\\" ü\\n.parquet"', "graph.neighbors=5", "seed=7"]
    options = {"source": {"uri": ["a"], "options": {"aws.region": "x", "timeout": 5}}}
    assert list(lines(options)) == ['source.uri=["a"]', 'source.options={"aws.region" = "x", timeout = 5}']


def test_async_iteration_goes_on_beside_other_tasks(table):
    async def run():
        ticks, ids = 0, []

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        async for mini_batch in Pipeline(VECTORS, data=table):
            ids += mini_batch.ids
        ticking.cancel()
        return ticks, ids

    ticks, ids = asyncio.run(run())
    assert sorted(ids) == list(range(1000))
    assert ticks > 3


def test_a_cancelled_wait_loses_no_mini_batch(table):
    async def run():
        ids = []
        async with await Pipeline(VECTORS, data=table).start_async() as stream:
            while True:
                waiting = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0)
                if not waiting.done():
                    waiting.cancel()
                try:
                    ids += (await waiting).ids
                except asyncio.CancelledError:
                    await asyncio.sleep(0.001)
                except StopAsyncIteration:
                    return ids

    assert sorted(asyncio.run(run())) == list(range(1000))


def test_one_stream_iterates_both_ways(table):
    async def rest(stream):
        steps = [(await anext(stream)).step]
        async for mini_batch in stream:
            steps.append(mini_batch.step)
            if len(steps) == 5:
                break
        return steps

    with start(table) as stream:
        assert iter(stream) is stream is aiter(stream)
        assert [next(stream).step for _ in range(3)] == [0, 1, 2]
        assert asyncio.run(rest(stream)) == [3, 4, 5, 6, 7]
        # Another loop, and none.
        assert asyncio.run(rest(stream)) == [8, 9, 10, 11, 12]
        assert [mini_batch.step for mini_batch in stream] == list(range(13, 32))


def test_several_tasks_share_a_stream(table):
    async def take(stream, steps):
        async for mini_batch in stream:
            steps.append(mini_batch.step)
            await asyncio.sleep(0)

    async def run():
        steps = []
        async with await Pipeline(VECTORS, data=table).start_async() as stream:
            await asyncio.gather(*(take(stream, steps) for _ in range(4)))
        return steps

    assert sorted(asyncio.run(run())) == list(range(32))


def test_negatives_come_as_ids_and_as_columns():
    settings = {
        "encode": {"model": ROOT / "data/models/verse-encoder/model.onnx", "max_tokens": 32},
        "pairs": {"anchor": "anchor", "positive": "positive"},
        "walk": {"batch_size": 32, "negatives": 3},
    }
    verses = pq.read_table(ROOT / "data/bible/pairs.parquet", columns=["anchor", "positive"]).slice(0, 600)
    names = ["anchor", "positive", "negative_1", "negative_2", "negative_3"]
    with Pipeline(SMALL, data=verses, **settings).start() as stream:
        near = stream.handle
        for mini_batch in stream:
            # The layout of sentence-transformers' n-tuples.
            assert mini_batch.column_names == names
            texts = mini_batch.to_torch()
            assert len(mini_batch.negatives) == len(mini_batch) == len(texts["anchor"])
            for row, (sample, negatives) in enumerate(zip(mini_batch.ids, mini_batch.negatives, strict=True)):
                assert len(set(negatives)) == 3
                assert not {*negatives} & {*mini_batch.ids}
                assert texts["anchor"][row] == verses["anchor"][sample].as_py()
                for name, negative in zip(names[2:], negatives, strict=True):
                    assert texts[name][row] == verses["positive"][negative].as_py()
        neighbors = {id for id, _ in near.neighbors(sample)}
        assert neighbors & {*negatives}


def test_without_negatives_there_are_none(table):
    with start(table) as stream:
        assert next(stream).negatives == []
    # All samples are in the mini-batch: none may come.
    with start(vectors(32), walk={"negatives": 2}) as stream:
        mini_batch = next(stream)
        assert mini_batch.negatives == [[None, None]] * 32
        assert pa.record_batch(mini_batch)["negative_1"].null_count == 32


def test_a_resumed_run_goes_on_as_the_other_would_have(table, tmp_path):
    settings = {"checkpoint": {"dir": tmp_path / "kept"}, "stream": {"epochs": 2}, "seed": 3}
    with start(table, **settings) as stream:
        for _ in range(40):
            next(stream)
        state = stream.state()
        expected = [mini_batch.ids for mini_batch in stream]
    assert (state["step"], state["epoch"]) == (40, 1)
    with start(table, resume=state, **settings) as stream:
        assert stream.state() == state
        assert [mini_batch.ids for mini_batch in stream] == expected
    with pytest.raises(prosampler.StateError, match=r"there is no checkpoint\.dir"):
        start(table, resume=state, seed=3)


def test_a_skipped_stretch_is_left_out(table, tmp_path):
    settings = {"checkpoint": {"dir": tmp_path / "kept"}, "stream": {"epochs": 2}, "seed": 3}
    with start(table, **settings) as stream:
        next(stream)
        state = stream.state()
        expected = [mini_batch.ids for mini_batch in stream][7:]
    skipped = prosampler.skip(state, 7)
    with start(table, resume=skipped, **settings) as stream:
        assert [mini_batch.ids for mini_batch in stream] == expected
    # A state of an adapter holds one of a stream.
    adapters = {"stream": state, "epoch": 0, "within_epoch": True}
    assert prosampler.skip(adapters, 7) == {**adapters, "stream": skipped}
    with pytest.raises(prosampler.ArgumentError, match="mini_batches is -1"):
        prosampler.skip(state, -1)
    with pytest.raises(prosampler.StateError, match="this is no state"):
        prosampler.skip({"step": 3}, 1)


def test_a_kept_state_outlives_many_refreshes(table, tmp_path):
    settings = {"checkpoint": {"dir": tmp_path / "kept"}, "seed": 3}
    with start(table, **settings) as stream:
        assert stream.handle.has_checkpoints
        for _ in range(5):
            mini_batch = next(stream)
        state = stream.state()
        expected = next(stream).ids
        stream.handle.keep(state)
        for _ in range(12):
            stream.handle.push_embeddings(mini_batch.ids[:1], np.ones((1, 16), np.float32))
            stream.handle.refresh_now()
        with pytest.raises(prosampler.StateError, match="this is no state"):
            stream.handle.keep({"step": 3})
        with pytest.raises(prosampler.StateError, match="of another run"):
            stream.handle.keep({**state, "seed": 4})
    with start(table, resume=state, **settings) as stream:
        assert next(stream).ids == expected
    with pytest.raises(prosampler.StateError, match="the state is damaged"):
        start(table, resume={**state, "step": 6}, **settings)
    with start(table) as stream:
        assert not stream.handle.has_checkpoints
        stream.keep()
        with pytest.raises(prosampler.StateError, match=r"there is no checkpoint\.dir"):
            stream.handle.keep(stream.state())


def test_pushed_embeddings_and_refreshes(table):
    import torch

    with start(table) as stream:
        handle = stream.handle
        first = next(stream)
        pushed = torch.randn(32, 16, requires_grad=True)
        handle.push_embeddings(first.ids, pushed)
        refreshed = handle.refresh_now()
        assert repr(refreshed).startswith("Refreshed(graph version 2, model version 2, 32 pushed, ")
        assert (refreshed.pushed, refreshed.graph_version, refreshed.model_version) == (32, 2, 2)
        assert handle.counts()["published"] == 1
        assert "graph version 2" in repr(handle)
        versions = [mini_batch.graph_version for mini_batch in stream]
        assert versions[-1] == 2
        neighbors = handle.neighbors(first.ids[0])
        assert len(neighbors) == 10
        similarities = [similarity for _, similarity in neighbors]
        assert similarities == sorted(similarities, reverse=True)
        with pytest.raises(prosampler.ArgumentError, match=r"\(2, 16\)"):
            handle.push_embeddings([1, 2], torch.zeros(2, 15))
        with pytest.raises(prosampler.ArgumentError, match="1000 samples"):
            handle.push_embeddings([5000], torch.ones(1, 16))
        with pytest.raises(prosampler.ArgumentError, match="sample -1 does not exist"):
            handle.push_embeddings([-1], torch.ones(1, 16))
        with pytest.raises(prosampler.ArgumentError, match="sample -1 does not exist"):
            handle.neighbors(-1)
        with pytest.raises(prosampler.EncodeError, match="not finite"):
            handle.push_embeddings([1], torch.full((1, 16), torch.nan))
    refresh = handle.refresh()
    for _ in range(2):
        with pytest.raises(prosampler.RefreshError):
            refresh.wait()
    assert repr(refresh).startswith("<prosampler.Refresh: failed, ")


def test_a_warm_up_has_uniform_mini_batches_before_there_is_a_graph(table):
    warm_up = {"walk": {**VECTORS["walk"], "warm_up": {"steps": 5}}, "refresh": {"first": "after_warm_up"}}
    with start(table, **warm_up) as stream:
        handle = stream.handle
        assert (handle.graph_version, handle.model_version, handle.dimension) == (None, None, 16)
        with pytest.raises(prosampler.StateError, match="no graph yet"):
            handle.neighbors(0)
        first = next(stream)
        assert first.is_warm_up
        versions = (first.model_version, first.graph_version, first.staleness, first.similarity)
        assert versions == (None, None, None, None)
        assert "warm-up without a graph" in repr(first)
        assert stream.state()["graph_version"] == 0
        rest = list(stream)
        assert [mini_batch.is_warm_up for mini_batch in rest] == [True] * 4 + [False] * (len(rest) - 4)
        assert rest[4].graph_version == 1 and rest[4].staleness == 0 and rest[4].similarity is not None
        assert sorted(id for mini_batch in [first, *rest] for id in mini_batch.ids) == list(range(1000))


def test_a_failed_refresh_is_logged_and_the_run_goes_on(glosses, model_copy, caplog):
    encode = {"model": model_copy, "column": "definition"}
    with Pipeline(SMALL, data=glosses, encode=encode).start() as stream:
        model_copy.write_bytes(b"no model")
        with caplog.at_level(logging.INFO, "prosampler"), pytest.raises(prosampler.RefreshError, match=r"model\.onnx"):
            stream.handle.refresh_now()
        with caplog.at_level(logging.INFO, "prosampler"):
            assert len(list(stream)) == 63
        assert any(r.levelno == logging.WARNING and "a refresh failed" in r.message for r in caplog.records)


def test_a_data_set_of_other_size_each_time():
    for rows in (33, 64):
        with start(vectors(rows)) as stream:
            assert sum(len(mini_batch) for mini_batch in stream) == rows
