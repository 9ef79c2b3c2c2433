"""Mini-batches of a server are those of a pipeline in the process, whatever is asked of it."""

import asyncio
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from serving import facts, pipeline

import prosampler
from prosampler import RemotePipeline, connect


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_rank_gets_what_it_would_get_in_process(table, serve, world_size):
    server = serve(pipeline(table, stream={"world_size": world_size}))
    ranks = range(world_size)
    streams = [connect(server.uri, rank=rank, world_size=world_size) for rank in ranks]
    served = [list(map(facts, step)) for step in zip(*streams, strict=True)]
    local = []
    for rank in ranks:
        with pipeline(table, stream={"rank": rank, "world_size": world_size}).start() as stream:
            assert (stream.samples, stream.mini_batches_per_epoch) == (1000, 32)
            assert (streams[rank].samples, streams[rank].mini_batches_per_epoch) == (1000, 32)
            assert streams[rank].column_names == stream.column_names == table.column_names
            assert pa.schema(streams[rank]) == pa.schema(stream)
            assert streams[rank].handle.dimension == 16
            local.append(list(map(facts, stream)))
            # At the end, and so is each in between, which others go on from.
            assert streams[rank].state() == stream.state()
    assert served == [list(step) for step in zip(*local, strict=True)]
    assert len(served) == 64
    assert served[-1][0][0][5] > 3
    for stream in streams:
        with pytest.raises(StopIteration):
            next(stream)
        stream.close()


def test_async_iteration_and_close(table, serve):
    server = serve(pipeline(table))

    async def take():
        async with await RemotePipeline(server.uri).start_async() as stream:
            return [facts(mini_batch) async for mini_batch in stream], stream

    served, stream = asyncio.run(take())
    assert served == list(map(facts, pipeline(table)))
    assert stream.closed
    with pytest.raises(prosampler.ClosedError):
        next(stream)


def test_a_state_is_the_same_from_a_server_and_in_process(table, serve, tmp_path):
    checkpoint = {"dir": tmp_path}
    expected = list(map(facts, pipeline(table)))
    server = serve(pipeline(table, checkpoint=checkpoint))
    with connect(server.uri) as stream:
        assert stream.handle.has_checkpoints
        for _ in range(12):
            next(stream)
        stream.keep()
        state = json.loads(json.dumps(stream.state()))
        # Ready, and not taken.
        for _ in range(20):
            next(stream)
    # The server goes back.
    with connect(server.uri, state=state) as stream:
        assert list(map(facts, stream)) == expected[12:]
    server.close()
    # In process, in the middle of an epoch, and again from there.
    with pipeline(table, checkpoint=checkpoint).resumed(state).start() as stream:
        assert [facts(next(stream)) for _ in range(8)] == expected[12:20]
        stream.keep()
        state = stream.state()
    server = serve(pipeline(table, checkpoint=checkpoint))
    with connect(server.uri, state=state) as stream:
        assert stream.state() == state
        assert list(map(facts, stream)) == expected[20:]


def test_rows_that_cannot_be_read_again_are_named(table, serve, tmp_path):
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    server = serve(pipeline(reader, checkpoint={"dir": tmp_path}))
    with connect(server.uri) as stream:
        next(stream)
        stream.keep()
        state = stream.state()
        for _ in range(4):
            next(stream)
    with pytest.raises(prosampler.ServerError, match="can be read once only"):
        connect(server.uri, state=state)


def test_pushes_and_refreshes_go_over_the_connection(table, serve):
    quiet = pipeline(table, refresh={"every_steps": None, "swap_after_steps": None})
    server = serve(quiet)
    generator = np.random.default_rng(1)
    ids, pushed = list(range(40)), generator.normal(size=(40, 16)).astype(np.float32)
    with connect(server.uri) as stream, quiet.start() as local:
        assert facts(next(stream)) == facts(next(local))
        answers = []
        for handle in (stream.handle, local.handle):
            assert handle.counts() == {"published": 0, "skipped": 0, "failed": 0, "cancelled": 0}
            before = handle.neighbors(7)
            handle.push_embeddings(ids, torch.from_numpy(pushed))
            done = handle.refresh_now(60)
            assert (done.pushed, done.skipped, done.added, done.drift) == (40, False, 0, None)
            assert done.seconds > 0
            assert (handle.graph_version, handle.model_version) == (done.graph_version, done.model_version) == (2, 2)
            assert handle.counts()["published"] == 1
            assert "1 published" in repr(handle)
            assert handle.neighbors(7) != before
            handle.push_losses(ids, pushed[:, 0])
            answers.append(handle.neighbors(7))
            assert handle.pair_similarity(7) is None
        assert answers[0] == answers[1]
        handle = stream.handle
        with pytest.raises(prosampler.ArgumentError, match="shape"):
            handle.push_embeddings([1], np.ones((1, 8)))
        for wrong in (
            lambda: handle.push_embeddings([1000], np.ones((1, 16))),
            lambda: handle.push_losses([1000], np.ones(1)),
            lambda: handle.neighbors(1000),
            lambda: handle.pair_similarity(1000),
        ):
            with pytest.raises(prosampler.ServerError, match="sample 1000"):
                wrong()
        assert not handle.has_checkpoints
        with pytest.raises(prosampler.ServerError, match=r"checkpoint\.dir"):
            handle.keep(stream.state())
        # Nothing is asked of the server then.
        stream.keep()
    with pytest.raises(prosampler.RefreshError, match="the run has ended"):
        handle.counts()
