"""Signals, forks and threads."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import MODEL, SMALL, VECTORS, exit_code

import prosampler
from prosampler import Pipeline


class Turns:
    """A raw stream that notes when each of its waits began, and for how long it was asked to wait at most."""

    def __init__(self, raw):
        self.raw, self.began, self.asked = raw, [], set()

    def poll(self, seconds):
        return self._turn(self.raw.poll, seconds)

    def poll_start(self, seconds):
        return self._turn(self.raw.poll_start, seconds)

    def _turn(self, wait, seconds):
        self.began.append(time.monotonic())
        self.asked.add(seconds)
        return wait(seconds)

    def __getattr__(self, name):
        return getattr(self.raw, name)


@pytest.fixture
def turns(monkeypatch):
    """Those of the streams that are opened."""
    opened, open_ = [], Pipeline._open
    monkeypatch.setattr(Pipeline, "_open", lambda self: opened.append(Turns(open_(self))) or opened[-1])
    return opened


def interrupt(wait, turns, after=0.3):
    """Sends SIGINT while ``wait()`` waits, and shows that it is answered within 100 ms.

    By turns, since a busy machine stretches every time: a wait of 50 ms at most may be under way when the signal comes,
    another may just have been about to begin.
    """
    # Where the tests run in the background of a shell, Ctrl-C is ignored from the start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        wait()
    except KeyboardInterrupt:
        (stream,) = turns
        assert max(stream.asked) <= 0.05
        assert sum(began > sent[0] for began in stream.began) <= 1
    else:
        pytest.fail("it did not wait long enough to be interrupted")
    finally:
        timer.cancel()
        timer.join()


def threads():
    """This process's threads, id and name."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.add((task.name, Path(task, "comm").read_text().strip()))
    return found


@pytest.fixture
def none_left(glosses):
    """A function that fails where there are threads that were not there before the test."""
    if not Path("/proc/self/task").exists():
        pytest.skip("threads are listed on Linux only")
    # ONNX Runtime has one thread for the life of the process, once a model was opened.
    list(Pipeline(SMALL, data=glosses, encode={"model": MODEL, "column": "definition"}))
    end = time.monotonic() + 10
    while sum(name.startswith("prosampler") for _, name in threads()) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    before = threads()

    def wait(patience=10.0):
        end = time.monotonic() + patience
        while (left := threads() - before) and time.monotonic() < end:
            time.sleep(0.01)
        assert not left

    return wait


def slow_reader(table, released):
    def batches():
        yield from table.to_batches(max_chunksize=100)
        released.wait()

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def test_ctrl_c_ends_a_start(table, none_left, turns):
    released = threading.Event()
    pipeline = Pipeline(VECTORS, data=slow_reader(table, released))
    try:
        # What it waits for does not come before.
        interrupt(pipeline.start, turns)
    finally:
        released.set()
    none_left()


def test_an_interpreter_waits_for_the_reader_of_a_start_that_was_given_up():
    script = """
import threading, time
import pyarrow as pa
from prosampler import Pipeline

reading = threading.Event()

def batches():
    yield pa.record_batch({"vector": [[1.0, 2.0]]})
    reading.set()
    time.sleep(0.5)
    print("done")

reader = pa.RecordBatchReader.from_batches(next(batches()).schema, batches())
encode = {"feature": "vector", "column": "vector", "dimension": 2}
raw = Pipeline(data=reader, encode=encode)._open()
reading.wait()
raw.close(0.0)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    # One that ends before it may crash.
    assert (run.returncode, run.stdout, run.stderr) == (0, "done\n", "")


def test_ctrl_c_ends_an_await(table, none_left, turns):
    released = threading.Event()

    async def run():
        await Pipeline(VECTORS, data=slow_reader(table, released)).start_async()

    try:
        interrupt(lambda: asyncio.run(run()), turns)
    finally:
        released.set()
    none_left()


def test_ctrl_c_ends_a_wait_for_a_mini_batch_and_the_stream_goes_on(glosses, model_copy, turns):
    many = pa.concat_tables([glosses] * 4)
    refresh = {"every_steps": 5, "swap_after_steps": 1}
    encode = {"model": model_copy, "column": "definition"}
    with Pipeline(SMALL, data=many, encode=encode, refresh=refresh, compute={"threads": 1}).start() as stream:
        for _ in range(4):
            next(stream)
        # A newer model: the stream waits until all samples are embedded anew.
        os.utime(model_copy)
        seen = 4

        def wait():
            nonlocal seen
            while next(stream).graph_version == 1:
                seen += 1

        interrupt(wait, turns, after=0.1)
        assert seen == 6
        assert next(stream).step == 6


def test_other_threads_run_while_it_waits(table, turns):
    released, steps = threading.Event(), 200

    def work():
        for _ in range(steps):
            time.sleep(0.001)
        released.set()

    thread = threading.Thread(target=work)
    thread.start()
    with Pipeline(VECTORS, data=slow_reader(table, released)).start() as stream:
        next(stream)
    thread.join()
    # With the lock held throughout a turn, the thread would get one step a turn.
    assert len(turns[0].began) < steps / 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_gets_an_error_and_the_parent_goes_on(table):
    stream = Pipeline(VECTORS, data=table).start()
    next(stream)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                next(stream)
            except prosampler.ForkError as error:
                assert "num_workers=0" in str(error)
                assert "fork" in repr(stream)
                stream.close()
                del stream
                # A pipeline of its own is fine.
                own = Pipeline(VECTORS, data=table)
                assert sum(len(mini_batch) for mini_batch in own) == 1000
                code = 0
        finally:
            os._exit(code)
    assert exit_code(child) == 0
    assert len(list(stream)) == 31
    stream.close()


def test_no_thread_is_left_behind(table, none_left):
    stream = Pipeline(VECTORS, data=table, refresh={"every_steps": 1}).start(progress=True)
    next(stream)
    with pytest.raises(AssertionError):
        none_left(patience=0.0)
    # Without close, by the object's death alone.
    del stream
    none_left()
    for mini_batch in Pipeline(VECTORS, data=table):
        assert len(mini_batch) == 32
        break
    none_left()


def test_no_thread_of_a_model_is_left_behind(glosses, model_copy, none_left):
    encode = {"model": model_copy, "column": "definition"}
    stream = Pipeline(SMALL, data=glosses, encode=encode, refresh={"watch_model": True}).start()
    next(stream)
    os.utime(model_copy)
    refresh = stream.handle.refresh()
    # In the middle of a refresh.
    del stream
    none_left()
    with pytest.raises(prosampler.RefreshError):
        refresh.wait(10)


def test_no_thread_of_a_sampler_is_left_behind(table, none_left):
    from prosampler.torch import HardNegativeBatchSampler

    sampler = HardNegativeBatchSampler(VECTORS, data=table)
    next(iter(sampler))
    del sampler
    none_left()
