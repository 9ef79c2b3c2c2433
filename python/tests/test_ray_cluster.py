"""Rows that are embedded and divided on a cluster of Ray, and a training that loses a node and a worker."""

import hashlib
import json
import subprocess
import sys
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from conftest import GLOSSES, ROOT, SMALL

import prosampler
import prosampler.ray
from prosampler import Embedder, Pipeline

TEXT = str(ROOT / "pipelines/text.toml")
ROWS = 10_000


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two files, whose rows are no whole blocks."""
    folder = tmp_path_factory.mktemp("rows")
    table = pq.read_table(GLOSSES, columns=["synset", "definition"]).slice(0, ROWS)
    pq.write_table(table.slice(0, 3000), folder / "a.parquet")
    pq.write_table(table.slice(3000), folder / "b.parquet")
    return folder


def settings(folder, cache=None):
    encode = {"model": str(ROOT / "data/models/gloss-encoder/model.onnx"), "column": "definition", "max_tokens": 64}
    return {**SMALL, "encode": {**encode, "cache_dir": cache}, "source": {"uri": str(folder)}}


def vectors(column):
    return np.stack(column.to_numpy(zero_copy_only=False))


def test_ray_and_local_runs_find_each_other_s_embeddings(cluster, folder, tmp_path):
    def embed(cache):
        dataset = ray.data.read_parquet(str(folder))
        made = prosampler.ray.embed(dataset, settings(folder, str(cache)), concurrency=(1, 2), num_cpus=0.5)
        tables = ray.get(made.to_arrow_refs())
        return pa.concat_tables(tables).sort_by("synset")

    def reused(cache):
        with Pipeline(settings(folder, str(cache))).start() as stream:
            return len(list(cache.rglob("*.arrow"))), stream.samples

    made = embed(tmp_path / "of-ray")
    files = sorted(path.name for path in (tmp_path / "of-ray").rglob("*.arrow"))
    assert len(files) == 2
    # Were anything embedded anew, there would be other files.
    assert reused(tmp_path / "of-ray") == (2, ROWS)
    assert reused(tmp_path / "of-run") == (2, ROWS)
    assert sorted(path.name for path in (tmp_path / "of-run").rglob("*.arrow")) == files
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "of-run").rglob("*.arrow")}
    assert embed(tmp_path / "of-run").equals(made)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "of-run").rglob("*.arrow")}

    table = pq.read_table(folder).sort_by("synset")
    assert made.drop_columns(["embedding"]).equals(table)
    sample = table.slice(100, 300)
    alone = pa.record_batch(Embedder(settings(folder)).embed(sample))
    np.testing.assert_allclose(vectors(made["embedding"])[100:400], vectors(alone["embedding"]), atol=1e-5)


def test_shards_are_those_of_the_settings(cluster, folder, tmp_path):
    dataset = ray.data.read_parquet(str(folder))
    sizes = prosampler.ray.shards(dataset, tmp_path / "shards", by="synset", count=3, rows_per_file=1000)
    assert sum(sizes) == ROWS
    manifest = json.loads((tmp_path / "shards/shards.json").read_text())
    assert manifest == {"by": "synset", "count": 3, "seed": 0, "rows": sizes}
    assert len(list((tmp_path / "shards").rglob("*.parquet"))) == 12
    synsets = []
    for index, size in enumerate(sizes):
        of_folder = pq.read_table(tmp_path / f"shards/shard={index}", partitioning=None)
        assert of_folder.num_rows == size
        shard = {"by": "synset", "index": index, "count": 3}
        encode = {"feature": "vector", "column": "vector"}
        rows = with_vectors(pq.read_table(folder, columns=["synset"]))
        with Pipeline(data=rows, shard=shard, encode=encode, walk={"batch_size": 64}).start() as stream:
            of_run = {synset for mini_batch in stream for synset in mini_batch.rows["synset"].to_list()}
        # The smallest shard has no rest that sits out.
        of_shard = set(of_folder["synset"].to_pylist())
        assert of_run <= of_shard
        assert len(of_run) == min(sizes)
        synsets += of_folder["synset"].to_pylist()
    assert sorted(synsets) == sorted(pq.read_table(folder)["synset"].to_pylist())

    with pytest.raises(prosampler.FileError, match="has files already"):
        prosampler.ray.shards(dataset, tmp_path / "shards", by="synset", count=3)
    with pytest.raises(prosampler.ArgumentError, match="count is 0"):
        prosampler.ray.shards(dataset, tmp_path / "none", by="synset", count=0)
    with pytest.raises(ray.exceptions.RayTaskError, match=r"ArgumentError.*`shard`"):
        prosampler.ray.shards(dataset.add_column("shard", len), tmp_path / "none", by="synset", count=2)
    with pytest.raises(prosampler.ArgumentError, match="`definition`"):
        prosampler.ray.embed(dataset, TEXT, column="definition")
    one = dataset.map_batches(lambda rows: {"synset": ["a"] * len(rows["synset"])})
    with pytest.raises(prosampler.FileError, match="has no rows"):
        prosampler.ray.shards(one, tmp_path / "one", by="synset", count=2)


def with_vectors(rows):
    numbers = np.random.default_rng(1).normal(size=(len(rows), 4)).astype(np.float32)
    return rows.append_column("vector", pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), 4))


def test_equal_blocks_are_all_kept(cluster, tmp_path):
    """A data set that has the same rows twice."""
    table = pa.table({"id": list(range(100)) * 2})
    dataset = ray.data.from_arrow([table.slice(0, 100), table.slice(100)])
    sizes = prosampler.ray.shards(dataset, tmp_path / "twice", by="id", count=2, rows_per_file=50)
    assert sum(sizes) == 200
    ids = [id for path in (tmp_path / "twice").rglob("*.parquet") for id in pq.read_table(path)["id"].to_pylist()]
    assert sorted(ids) == sorted(table["id"].to_pylist())


@pytest.mark.timeout(900)
def test_a_training_that_loses_a_node_and_a_worker_is_the_same(tmp_path):
    """The demonstration on a tenth of the rows: `make cluster-demo` has all of them."""
    script = ROOT / "examples/train/cluster.py"
    small = ("--rows", "20000", "--steps", "20", "--out", str(tmp_path))
    done = subprocess.run([sys.executable, script, *small], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "a node is removed while it embeds" in said
    assert "a worker was killed" in said
    assert "both rounds trained on the same rows at every step" in said
    digests = [line.rsplit(" ", 1)[1] for line in said.splitlines() if "rows and losses" in line]
    lines = [
        [json.loads(line) for line in (tmp_path / round / f"trained-{rank}.jsonl").read_text().splitlines()]
        for round in ("without-faults", "with-faults")
        for rank in (0, 1)
    ]
    assert [len({line[0] for line in of_one}) for of_one in lines] == [20] * 4
    # The worker was killed one step after the checkpoint.
    assert len(lines[3]) > 20
    own = sorted(((step, rank), what) for rank in (0, 1) for step, *what in lines[rank])
    assert digests == [hashlib.sha256(json.dumps(own).encode()).hexdigest()[:16]] * 2
    rows = [set(chain(*(line[1] for line in of_one))) for of_one in lines[:2]]
    assert not rows[0] & rows[1]
