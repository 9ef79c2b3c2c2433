"""Rows of data sets on Hugging Face's hub: a lookalike of it answers, which its own client understands, too."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import VECTORS, vectors
from hub import COMMITS, Hub

import prosampler
from prosampler import Pipeline


def parquet(table):
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=100)
    return file.getvalue()


@pytest.fixture(scope="module")
def table():
    return vectors(600)


@pytest.fixture
def hub(table, monkeypatch, tmp_path):
    parts = {f"data/train-{n}.parquet": parquet(table.slice(200 * n, 200)) for n in range(3)}
    files = {**parts, "data/test.parquet": parquet(vectors(100, seed=1)), "README.md": b"# A data set", "a b.txt": b""}
    converted = {"default/train/0000.parquet": parquet(table)}
    old = {"rows.parquet": parquet(table.slice(0, 300))}
    hub = Hub({"main": files, "v1": old, "refs/convert/parquet": converted})
    for name in list(os.environ):
        if name.startswith("HF_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    yield hub
    hub.close()


def ids(uri, **source):
    with Pipeline(VECTORS, source={"uri": uri, "columns": ["id"], **source}).start() as stream:
        return sorted(id for mini_batch in stream for id in pa.record_batch(mini_batch.rows)["id"].to_pylist())


def of_client(code):
    """What the hub's own client does in a process of its own, which reads the environment anew."""
    script = f"import json\nfrom huggingface_hub import HfApi, hf_hub_download\nprint(json.dumps({code}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_hub_s_own_client_sees_the_same_files(hub):
    tree = 'HfApi().list_repo_tree("owner/name", recursive=True, repo_type="dataset")'
    files = of_client(f"sorted(f.path for f in {tree} if hasattr(f, 'size'))")
    assert files == sorted(hub.revisions[COMMITS["main"]])


def test_files_folders_patterns_and_revisions_are_read(hub):
    for uri, rows in [
        ("hf://datasets/owner/name/data/train-*.parquet", range(600)),
        ("hf://datasets/owner/name/data/train-1.parquet", range(200, 400)),
        ("hf://datasets/owner/name@main/**/train-[01].parquet", range(400)),
        ("hf://datasets/owner/name@v1", range(300)),
        ("hf://datasets/owner/name@v1/rows.parquet", range(300)),
        (f"hf://datasets/owner/name@{COMMITS['v1']}/", range(300)),
        ("hf://datasets/owner/name@refs/convert/parquet/default/train", range(600)),
        ("hf://datasets/owner/name@refs%2Fconvert%2Fparquet/*/*/*.parquet", range(600)),
    ]:
        assert ids(uri) == list(rows), uri
    both = ["hf://datasets/owner/name/data/train-2.parquet", "hf://datasets/owner/name@v1"]
    assert ids(both) == [*range(300), *range(400, 600)]
    # Files of a folder come by name: 100 rows of the test, then those of training.
    with Pipeline(VECTORS, source="hf://datasets/owner/name/data").start() as stream:
        assert stream.samples == 700


def test_a_token_is_for_the_hub_alone(hub, monkeypatch, tmp_path):
    hub.token = "secret"
    uri = "hf://datasets/owner/name/data/train-1.parquet"
    with pytest.raises(prosampler.SourceError, match=r"owner/name.*401 .*HF_TOKEN"):
        ids(uri)
    hub.asked.clear()
    assert ids(uri, options={"token": "secret"}) == list(range(200, 400))
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert ids(uri) == list(range(200, 400))
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home/token").write_text("secret\n")
    assert ids(uri) == list(range(200, 400))
    sent = {(path.startswith("/cdn/"), token) for _, path, token in hub.asked}
    assert sent == {(True, None), (False, "Bearer secret")}
    with pytest.raises(prosampler.SourceError, match=r"401 "):
        ids(uri, options={"token": "secret2"})


def test_requests_that_fail_for_a_passing_reason_are_sent_again(hub):
    uri = "hf://datasets/owner/name/data/train-*.parquet"
    hub.faults = [503, 429, 500]
    assert ids(uri) == list(range(600))
    assert not hub.faults
    hub.faults = [503] * 3
    with pytest.raises(prosampler.SourceError, match="503"):
        ids(uri, retries=1)


def test_files_in_the_cache_of_the_hub_s_client_are_read_from_there(hub, monkeypatch):
    names = ["data/train-0.parquet", "data/train-2.parquet"]
    for name in names:
        path = of_client(f'hf_hub_download("owner/name", "{name}", repo_type="dataset")')
        with open(path, "rb") as file:
            assert file.read() == hub.revisions[COMMITS["main"]][name]
    hub.asked.clear()
    assert ids("hf://datasets/owner/name/data/train-*.parquet") == list(range(600))
    fetched = {path for _, path, _ in hub.asked if "/resolve/" in path}
    assert fetched == {f"/datasets/owner/name/resolve/{COMMITS['main']}/data/train-1.parquet"}

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    assert ids("hf://datasets/owner/name/data") == [*range(200), *range(400, 600)]
    assert ids("hf://datasets/owner/name/data/*-2.parquet") == list(range(400, 600))
    with pytest.raises(prosampler.SourceError, match=r"HF_HUB_OFFLINE is set.*hf download"):
        ids("hf://datasets/owner/name@v1")
    assert not hub.asked


def test_what_is_not_there_is_an_error_that_names_it(hub):
    for uri, says in [
        ("hf://datasets/owner/other", "404 .*RepoNotFound"),
        ("hf://datasets/owner/name@v9", "404 .*RevisionNotFound"),
        ("hf://datasets/owner/name/data/train-9.parquet", "no file matches"),
        ("hf://datasets/owner/name/nothing", "no file matches"),
        ("hf://datasets/owner/name/x*.parquet", "no file matches"),
        ("hf://models/owner/name", "hf://datasets/OWNER/NAME"),
        ("hf://datasets/owner", "hf://datasets/OWNER/NAME"),
    ]:
        with pytest.raises(prosampler.Error, match=says):
            ids(uri)
    with pytest.raises(prosampler.SourceError, match="`region`"):
        ids("hf://datasets/owner/name", options={"region": "eu"})
    with pytest.raises(prosampler.SourceError, match="endpoint is `nowhere`"):
        ids("hf://datasets/owner/name", options={"endpoint": "nowhere"})
    hub.next_page_at = "http://localhost:1"
    with pytest.raises(prosampler.Error, match="not its own"):
        ids("hf://datasets/owner/name/data")
    # A data set that lost its files.
    hub.revisions[COMMITS["main"]] = {}
    with pytest.raises(prosampler.Error, match="no file matches"):
        ids("hf://datasets/owner/name")
