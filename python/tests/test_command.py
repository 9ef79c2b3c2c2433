"""The ``prosampler`` command that the package installs is that of the crate."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from conftest import ROOT, free_port

import prosampler

COMMAND = Path(sys.executable).with_name("prosampler")


def run(*arguments, **options):
    return subprocess.run(
        [COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=250, check=False, **options
    )


def test_it_embeds_with_the_library_of_the_package(tmp_path):
    shown = run("run", "pipelines/text.toml", "--set", "source.filter=label = 'noun.animal'", "--json")
    assert shown.returncode == 0, shown.stderr
    assert '"type":"summary","ending":"done"' in shown.stdout.splitlines()[-1]
    assert "onnxruntime/capi" in run("doctor").stdout


def test_its_exit_statuses_and_words_are_those_of_the_crate():
    assert run("--version").stdout.split() == ["prosampler", prosampler.__version__]
    wrong = run("rum")
    assert (wrong.returncode, "run" in wrong.stderr) == (2, True)
    missing = run("run", "missing.toml")
    assert (missing.returncode, "missing.toml" in missing.stderr) == (5, True)


def test_ctrl_c_ends_it_at_once():
    arguments = ["run", "pipelines/precomputed.toml", "--step-ms", "20", "--json", "--set", "stream.epochs=1000"]
    with subprocess.Popen([COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
        assert process.wait() == 130, said
    assert "one that can is started by\n  prosampler run pipelines/precomputed.toml" in said


def test_ctrl_c_ends_a_start():
    port = free_port()
    arguments = ["run", "pipelines/text.toml", "--metrics", f"127.0.0.1:{port}", "--set", "encode.cache_limit=0"]
    with subprocess.Popen([COMMAND, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while (stage(port) or {}).get("stage") != "embedding":
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT


def stage(port):
    """What the command does at the moment; ``None`` if it does not listen yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=60) as answer:
            return json.load(answer)["progress"]
    except OSError:
        return None
