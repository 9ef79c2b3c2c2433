"""What goes over the connections to a server: no more than there is room for, and nothing from a forked process."""

import json
import os
import re
import socket
import threading
from contextlib import closing, suppress
from itertools import chain

import pytest
from conftest import exit_code
from serving import pipeline

import prosampler
from prosampler import connect


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
    assert exit_code(child) == 0
    assert next(stream).step == 1
    stream.close()
