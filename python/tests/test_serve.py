"""Mini-batches of a server are those of a pipeline in the process, whatever is asked of it."""

import asyncio
import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import closing, suppress
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ROOT, VECTORS, vectors
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import prosampler
from prosampler import Pipeline, RemotePipeline, connect
from prosampler.accelerate import AccelerateBatchSampler
from prosampler.torch import HardNegativeBatchSampler, HardNegativeDataset

TOKEN = "a-token-that-is-long-enough"
#: Two epochs of 32 mini-batches, with graphs that change at known steps.
RUN = {"refresh": {"every_steps": 10, "swap_after_steps": 3}, "seed": 5}


def pipeline(table, *, stream=None, **settings):
    return Pipeline(VECTORS, data=table, stream={"epochs": 2, **(stream or {})}, **{**RUN, **settings})


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


def facts(mini_batch):
    """All that a mini-batch has."""
    names = "ids negatives epoch step model_version graph_version staleness similarity is_warm_up digest counts"
    return [getattr(mini_batch, name) for name in names.split()], pa.record_batch(mini_batch)


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


def test_only_who_has_the_token_gets_in(table, serve):
    server = serve(pipeline(table), token=TOKEN)
    for token in (None, "a-token-that-is-long-enougH"):
        with pytest.raises(prosampler.ServerError, match=f"`{server.uri}`: the token is missing or wrong"):
            connect(server.uri, token=token)
    with connect(server.uri, token=TOKEN) as stream:
        assert next(stream).step == 0
    with pytest.raises(prosampler.ConfigError, match="in the clear"):
        connect("http://192.0.2.1:8815", token=TOKEN)
    assert TOKEN not in repr(RemotePipeline(server.uri, token=TOKEN))


def test_tls_needs_a_certificate_that_the_client_knows(table, serve):
    certificate, key = (ROOT / "tests/data/tls" / name for name in ("cert.pem", "key.pem"))
    server = serve(pipeline(table), token=TOKEN, tls=(certificate, key))
    assert server.uri.startswith("https://")
    with connect(server.uri, token=TOKEN, ca_certificate=certificate) as stream:
        assert next(stream).step == 0
    with pytest.raises(prosampler.ServerError, match="certificate"):
        connect(server.uri, token=TOKEN)
    with pytest.raises(prosampler.FileError, match=r"no\.pem"):
        connect(server.uri, ca_certificate="no.pem")


def test_no_server_is_an_error_within_seconds():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    for use in (connect, lambda uri: HardNegativeBatchSampler(RemotePipeline(uri))):
        begun = time.monotonic()
        message = f"`{uri}`: cannot be reached .*start `prosampler serve`"
        with pytest.raises(prosampler.ServerError, match=message) as error:
            use(uri)
        assert time.monotonic() - begun < 10
        assert isinstance(error.value, prosampler.Error)


@pytest.mark.parametrize(
    ("use", "kind", "part"),
    [
        (lambda uri: connect(uri, rank=1), prosampler.ConfigError, "rank is 1 of 1"),
        (lambda uri: connect(uri, rank=-1), prosampler.ConfigError, "rank is -1 of 1"),
        (lambda uri: connect(uri, prefetch=0), prosampler.ConfigError, "prefetch is 0"),
        (lambda uri: connect("nowhere"), prosampler.ConfigError, "is no uri of a server"),
        (lambda uri: connect(uri, state={"seed": 1}), prosampler.StateError, "this is no state"),
        (lambda uri: connect(uri, world_size=3), prosampler.ServerError, "3 ranks, and the server's"),
        (lambda _: Pipeline(VECTORS, source="a", resume={"seed": 1}).serve(), prosampler.ConfigError, "connect"),
        (lambda uri: RemotePipeline(uri).serve(), prosampler.ConfigError, "serves this pipeline already"),
        (
            lambda uri: RemotePipeline(uri).with_settings(walk={"batch_size": 8}),
            prosampler.ConfigError,
            "walk.batch_size=8 cannot be set here",
        ),
    ],
)
def test_what_cannot_be_is_said(table, serve, use, kind, part):
    server = serve(pipeline(table))
    with pytest.raises(kind, match=part):
        use(server.uri)


@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        ({"address": "0.0.0.0:0"}, prosampler.ConfigError, "--token-file: is required"),
        ({"address": "localhost"}, prosampler.ConfigError, "give an IP address and a port"),
        ({"token": "short"}, prosampler.ConfigError, "can be guessed"),
        ({"tls": ("no.pem", "no.key")}, prosampler.FileError, r"cannot read `no\.pem`"),
    ],
)
def test_a_server_that_is_not_safe_or_not_possible_does_not_start(table, options, kind, part):
    with pytest.raises(kind, match=part):
        pipeline(table).serve(**{"address": "127.0.0.1:0", **options})


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
            answers.append(handle.neighbors(7))
        assert answers[0] == answers[1]
        handle = stream.handle
        with pytest.raises(prosampler.ArgumentError, match="shape"):
            handle.push_embeddings([1], np.ones((1, 8)))
        for wrong in (lambda: handle.push_embeddings([1000], np.ones((1, 16))), lambda: handle.neighbors(1000)):
            with pytest.raises(prosampler.ServerError, match="sample 1000"):
                wrong()
        assert not handle.has_checkpoints
        with pytest.raises(prosampler.ServerError, match=r"checkpoint\.dir"):
            handle.keep(stream.state())
        # Nothing is asked of the server then.
        stream.keep()
    with pytest.raises(prosampler.RefreshError, match="the run has ended"):
        handle.counts()


@pytest.mark.parametrize("adapter", [HardNegativeBatchSampler, AccelerateBatchSampler])
def test_samplers_over_a_server(table, serve, adapter):
    server = serve(pipeline(table))
    sampler = adapter(RemotePipeline(server.uri))
    local = adapter(pipeline(table))
    assert len(sampler) == len(local) == 32
    assert "batch size 32" in repr(sampler)
    assert sampler.drop_last is False
    for _ in range(2):
        assert list(sampler) == list(local)
    with pytest.raises(prosampler.StateError, match=r"stream\.epochs"):
        next(iter(sampler))
    sampler.close()
    local.close()


def test_a_data_set_over_a_server_resumes_in_the_middle_of_an_epoch(table, serve, tmp_path):
    server = serve(pipeline(table, checkpoint={"dir": tmp_path}))

    def loader():
        dataset = HardNegativeDataset(RemotePipeline(server.uri), transform=lambda mini_batch: mini_batch.ids)
        # Trainers ask for it before they say which state they go on from.
        assert len(dataset) == 32
        return StatefulDataLoader(dataset, batch_size=None)

    expected = [mini_batch.ids for mini_batch in pipeline(table)]
    first = loader()
    items = iter(first)
    assert [next(items) for _ in range(12)] == expected[:12]
    first.dataset.keep()
    state = json.loads(json.dumps(first.state_dict()))
    assert [next(items) for _ in range(10)] == expected[12:22]
    del items, first
    second = loader()
    second.load_state_dict(state)
    assert list(second) == expected[12:32]
    assert list(second) == expected[32:]
    second.dataset.close()


def test_callbacks_that_set_refreshes_say_where_they_belong(table, serve, tmp_path):
    from prosampler.callbacks import EncoderRefresh

    server = serve(pipeline(table))
    sampler = HardNegativeBatchSampler(RemotePipeline(server.uri))
    refresh = EncoderRefresh(sampler, torch.nn.Linear(16, 8), tmp_path / "model.onnx", every_steps=10)
    with pytest.raises(prosampler.ConfigError, match=r"refresh\.every_steps=10.* cannot be set here"):
        refresh.begin()


def train_rank(rank, world_size, folder, uri):
    """One of several processes that train together."""
    store = torch.distributed.FileStore(f"{folder}/store", world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    # The ranks are found, and compare what they got.
    dataset = HardNegativeDataset(RemotePipeline(uri))
    assert (dataset.rank, dataset.world_size) == (rank, world_size)
    steps = []
    for _ in range(2):
        for columns in DataLoader(dataset, batch_size=None):
            total = columns["vector"].sum()
            torch.distributed.all_reduce(total)
            steps.append(columns["id"].tolist())
    assert dataset.epochs._check.__self__._group is not None
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(steps, file)
    dataset.close()
    torch.distributed.destroy_process_group()


def test_two_processes_share_every_mini_batch(serve, tmp_path):
    table = vectors(1000)
    server = serve(pipeline(table, stream={"world_size": 2}))
    torch.multiprocessing.spawn(train_rank, (2, tmp_path, server.uri), nprocs=2)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    joined = [a + b for a, b in zip(one, two, strict=True)]
    assert joined == [mini_batch.ids for mini_batch in pipeline(table)]


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_gets_an_error_and_the_parent_goes_on(table, serve):
    server = serve(pipeline(table))
    stream = connect(server.uri)
    next(stream)
    handle = stream.handle
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for use in (lambda: next(stream), handle.counts):
                try:
                    use()
                except prosampler.ForkError:
                    code += 1
            stream.close()
            server.close()
            del stream
            code -= 3
        finally:
            os._exit(code)
    end = time.monotonic() + 60
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status[1]) == 0
    assert next(stream).step == 1
    stream.close()


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


def test_a_sampler_over_a_server_leaves_out_a_stretch(table, serve, tmp_path):
    server = serve(pipeline(table, checkpoint={"dir": tmp_path}))
    sampler = HardNegativeBatchSampler(RemotePipeline(server.uri))
    items = iter(sampler)
    for _ in range(10):
        next(items)
    sampler.keep()
    sampler.load_state_dict(prosampler.skip(sampler.state_dict(), 7))
    assert [*sampler, *sampler] == [mini_batch.ids for mini_batch in pipeline(table)][17:]
    sampler.close()


class Wire:
    """Passes bytes on between clients and a server, and keeps what both say on each connection."""

    def __init__(self, server):
        self.heard = []
        self._server = "127.0.0.1", int(server.uri.rsplit(":")[-1])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, work, *args):
        threading.Thread(target=work, args=args, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                ends = self._listener.accept()[0], socket.create_connection(self._server)
                self._open += ends
                self.heard.append((bytearray(), bytearray()))
                self._start(self._pass, *ends, self.heard[-1][0])
                self._start(self._pass, *reversed(ends), self.heard[-1][1])

    def _pass(self, source, sink, heard):
        with suppress(OSError):
            while part := source.recv(1 << 16):
                heard += part
                sink.sendall(part)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Ends all connections, as a network does."""
        ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()
        self.cut()


def data(frames):
    """What HTTP/2 has carried: the payloads of DATA frames, whose type is 0."""
    payloads, at = bytearray(), 0
    while at + 9 <= len(frames):
        end = at + 9 + int.from_bytes(frames[at : at + 3])
        if frames[at + 3] == 0:
            payloads += frames[at + 9 : end]
        at = end
    return bytes(payloads)


def test_a_server_makes_what_it_is_asked_for_and_is_asked_for_what_there_is_room_for(table, serve, tmp_path):
    server = serve(pipeline(table, checkpoint={"dir": tmp_path}))
    with connect(server.uri) as stream:
        for _ in range(10):
            next(stream)
        stream.keep()
        state = prosampler.skip(stream.state(), 25)
    prefetch = 3
    with closing(Wire(server)) as wire, connect(wire.uri, state=state, prefetch=prefetch) as stream:
        steps = [next(stream).step for _ in range(5)]
        wire.cut()
        steps += [mini_batch.step for mini_batch in stream]
    assert steps == list(range(35, 64))
    made = []
    for said, answered in wire.heard:
        # Clients of HTTP/2 begin with 24 bytes that are no frame, and an exchange with a ticket, in whose state is the
        # step that comes first.
        said, answered = data(said[24:]), data(answered)
        state = json.JSONDecoder().raw_decode(said[said.index(b'{"rank"') :].decode(errors="replace"))[0]["state"]
        until = state["step"] + state.get("skips", 0)
        for credits, taken in re.findall(rb'{"credits":(\d+),"taken":(\d+)}', said):
            until += int(credits)
            # Nothing is said to be taken before the first mini-batch, that of step 35.
            assert until == max(int(taken), 35) + prefetch
        made.append([int(step) for step in re.findall(rb'{"step":(\d+),"is_warm_up"', answered)])
        assert max(made[-1]) < until
    assert len(made) > 1
    assert sorted({*chain(*made)}) == steps
