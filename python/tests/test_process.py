"""Signals, forks and threads."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import MODEL, SMALL, VECTORS

import prosampler
from prosampler import Pipeline

LIMIT = 0.1
"""Seconds within which Ctrl-C is answered."""


def interrupted(wait, after=0.3):
    """Seconds from SIGINT to the KeyboardInterrupt of ``wait()``."""
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
        return time.monotonic() - sent[0]
    finally:
        timer.cancel()
        timer.join()
    pytest.fail("it did not wait long enough to be interrupted")


def threads():
    """The names of this process's threads that are the pipeline's."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.append(Path(task, "comm").read_text().strip())
    return [name for name in names if name.startswith("prosampler")]


@pytest.fixture(scope="module")
def none_left(glosses):
    """Fails where threads of a pipeline are left."""

    def wait(patience=10.0):
        end = time.monotonic() + patience
        while (left := threads()) != of_onnxruntime and time.monotonic() < end:
            time.sleep(0.01)
        assert left == of_onnxruntime

    # ONNX Runtime has one thread for the life of the process, which is called as the thread that opened a model.
    list(Pipeline(SMALL, data=glosses, encode={"model": MODEL, "column": "definition"}))
    end = time.monotonic() + 10
    while len(of_onnxruntime := threads()) > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(of_onnxruntime) <= 1
    return wait


def slow_reader(table, released):
    def batches():
        yield from table.to_batches(max_chunksize=100)
        released.wait()

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def test_ctrl_c_ends_a_start(table, none_left):
    released = threading.Event()
    pipeline = Pipeline(VECTORS, data=slow_reader(table, released))
    try:
        assert interrupted(pipeline.start) < LIMIT
    finally:
        released.set()
    none_left()


def test_ctrl_c_ends_a_wait_for_a_mini_batch_and_the_stream_goes_on(glosses, model_copy):
    many = pa.concat_tables([glosses] * 4)
    refresh = {"every_steps": 5, "swap_at_step": 1}
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

        assert interrupted(wait) < LIMIT
        assert seen == 6
        assert next(stream).step == 6


def test_other_threads_run_while_it_waits(table):
    released, turns = threading.Event(), 0

    def work():
        nonlocal turns
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            turns += 1
            time.sleep(0.001)
        released.set()

    thread = threading.Thread(target=work)
    thread.start()
    pipeline = Pipeline(VECTORS, data=slow_reader(table, released))
    with pipeline.start() as stream:
        next(stream)
    thread.join()
    # With the lock held it would not have run at all.
    assert turns > 50


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
    end = time.monotonic() + 60
    while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status[1]) == 0
    assert len(list(stream)) == 31
    stream.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed on Linux only")
def test_no_thread_is_left_behind(table, none_left):
    none_left()
    stream = Pipeline(VECTORS, data=table, refresh={"every_steps": 1}).start()
    next(stream)
    assert threads()
    # Without close, by the object's death alone.
    del stream
    none_left()
    for mini_batch in Pipeline(VECTORS, data=table):
        assert len(mini_batch) == 32
        break
    none_left()
