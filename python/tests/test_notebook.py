"""Manners in a terminal and in a notebook."""

import os
import pty
import subprocess
import sys
import termios

import pytest
from conftest import ROOT
from jupyter_client import KernelManager

START = """
import sys
sys.path.insert(0, "python/tests")
from conftest import MODEL, SMALL, VECTORS, vectors
import pyarrow as pa
from prosampler import Pipeline

table = vectors(1000)
# Texts that differ in a number are near copies, which a run warns of unless they are kept apart.
guards = {"duplicate_similarity": 0.999}
pipeline = Pipeline(SMALL, data=table, encode={"model": MODEL, "column": "text"}, guards=guards)
stream = pipeline.start()
"""


def test_bars_in_a_terminal():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen([sys.executable, "-c", START], cwd=ROOT, stderr=theirs) as run:
        os.close(theirs)
        shown = b""
        # Linux says so where the other end is closed.
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:
            pass
    os.close(ours)
    assert run.returncode == 0, shown.decode()
    for stage in ("embedding", "graph"):
        assert f"{stage}: 100%" in shown.decode()


def test_no_bars_where_nobody_watches():
    run = subprocess.run([sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.fixture(scope="module")
def notebook():
    """A function that runs a cell: what it displays, prints and gives, and the name of its error."""
    kernel = KernelManager()
    kernel.start_kernel(cwd=str(ROOT))
    client = kernel.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)

    def cell(code, interrupt_at=None):
        shown = []

        def hear(message):
            content = message["content"]
            if message["msg_type"] in ("display_data", "execute_result"):
                shown.append(content["data"]["text/plain"])
            elif message["msg_type"] == "stream":
                shown.append(content["text"])
                if interrupt_at is not None and interrupt_at in content["text"]:
                    kernel.interrupt_kernel()

        reply = client.execute_interactive(code, output_hook=hear, timeout=60)["content"]
        return "\n".join(shown), reply.get("ename")

    yield cell
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_a_notebook(notebook):
    shown, error = notebook(START)
    assert error is None
    for stage in ("embedding", "graph"):
        # Of a widget.
        assert f"{stage}: " in shown
    shown, _ = notebook("stream")
    assert shown.startswith("<prosampler.Stream: 1,000 samples, 32 mini-batches an epoch, epoch 0, step 0, ")
    # Where an event loop is running already, both ways of iteration work.
    shown, _ = notebook("next(stream)")
    assert shown.startswith("MiniBatch(step 0, ")
    shown, _ = notebook("async for mini_batch in stream:\n    break\nmini_batch")
    assert shown.startswith("MiniBatch(step 1, ")
    shown, _ = notebook("stream.handle")
    assert shown.startswith("<prosampler.RefreshHandle: graph version 1, model version 1; refreshes: 0 published, ")


def test_the_stop_button_of_a_notebook(notebook):
    endless = """
def batches():
    yield from table.to_batches()
    print("waiting", flush=True)
    released.wait()

import threading
released = threading.Event()
Pipeline(VECTORS, data=pa.RecordBatchReader.from_batches(table.schema, batches())).start()
"""
    _, error = notebook(START)
    assert error is None
    _, error = notebook(endless, interrupt_at="waiting")
    assert error == "KeyboardInterrupt"
    # The kernel is well.
    assert notebook("released.set(); print(len(list(pipeline)))")[0].endswith("32\n")
