"""Several ranks of one server: they wait for each other, and go back and leave out mini-batches together."""

import os
import signal
import threading
from itertools import chain

import pytest
from serving import pipeline

import prosampler
from prosampler import connect


def test_ctrl_c_ends_a_wait_for_another_rank_and_the_stream_goes_on(table, serve):
    server = serve(pipeline(table, stream={"world_size": 2}))
    first = connect(server.uri, world_size=2)
    # So many mini-batches are held for the rank that is late.
    for _ in range(8):
        next(first)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(first)
    timer.join()
    with connect(server.uri, rank=1, world_size=2) as second:
        next(second)
        assert next(first).step == 8
    first.close()


def test_two_ranks_go_back_together(table, serve, tmp_path):
    server = serve(pipeline(table, stream={"world_size": 2}, checkpoint={"dir": tmp_path}))
    expected = [mini_batch.ids for mini_batch in pipeline(table)]
    streams = [connect(server.uri, rank=rank, world_size=2) for rank in range(2)]
    for step in range(20):
        for stream in streams:
            next(stream)
        if step == 9:
            streams[0].keep()
            state = streams[0].state()
            assert state == streams[1].state()
    with pytest.raises(prosampler.ServerError, match=r"ranks \[1\] are connected"):
        connect(server.uri, rank=0, world_size=2, state=state)
    for stream in streams:
        stream.close()
    assert joined(rejoin(server, 2, state)) == expected[10:]


def rejoin(server, world_size, state):
    """The streams of all ranks, from a state."""
    streams = []
    while len(streams) < world_size:
        try:
            streams.append(connect(server.uri, rank=len(streams), world_size=world_size, state=state))
        except prosampler.ServerError as error:
            # The server notices a little later that the others have left.
            assert "are connected" in str(error)
    return streams


def joined(streams):
    """The mini-batches that are left, over all ranks."""
    ids = [[*chain(*(mini_batch.ids for mini_batch in step))] for step in zip(*streams, strict=True)]
    for stream in streams:
        stream.close()
    return ids


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stretch_is_left_out_for_all_ranks(table, serve, tmp_path, world_size):
    settings = {"stream": {"world_size": world_size}, "checkpoint": {"dir": tmp_path}}
    server = serve(pipeline(table, **settings))
    streams = [connect(server.uri, rank=rank, world_size=world_size) for rank in range(world_size)]
    for _ in range(10):
        for stream in streams:
            next(stream)
    streams[0].keep()
    kept = streams[0].state()
    for stream in streams:
        stream.close()
    # Over the epoch's end, and over refreshes.
    state = prosampler.skip(kept, 25)
    streams = rejoin(server, world_size, state)
    assert [stream.state() for stream in streams] == [state] * world_size
    if world_size > 1:
        with pytest.raises(prosampler.ServerError, match=r"leaves out 0 mini-batches.*ranks \[0\] are connected"):
            connect(server.uri, rank=1, world_size=world_size, state=kept)
    served = joined(streams)
    server.close()
    ranks = [
        pipeline(table, stream={"world_size": world_size, "rank": rank}, checkpoint={"dir": tmp_path}).resumed(state)
        for rank in range(world_size)
    ]
    local = joined([rank.start() for rank in ranks])
    assert served == local == [mini_batch.ids for mini_batch in pipeline(table)][35:]
