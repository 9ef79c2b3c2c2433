"""Embeds and divides data sets of Ray."""

import hashlib
import io
import json
import math
import os
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from ray.data import ActorPoolStrategy, Dataset

from .._prosampler import shards_of
from ..embedder import Embedder
from ..errors import ArgumentError, FileError
from ..settings import section

ROWS = 8192
"""Rows in a record batch of the store, and so in a file of the embedding cache."""

MANIFEST = "shards.json"
"""Written last: a folder without it is not whole."""

COLUMN = "shard"
"""In whose folders, ``shard=3``, the rows of a shard lie."""


def embed(
    dataset: Dataset,
    settings: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    /,
    *,
    column: str = "embedding",
    concurrency: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float = 0,
    **sections: Any,
) -> Dataset:
    """Adds a column of vectors to a data set, made by the model of a run's settings on the nodes of the cluster.

    The rows go through a pool of actors, 8,192 at a time, each with a model of its own; Ray retries what a lost node
    had. A run takes the vectors as its embeddings by ``encode = {"feature": "vector", "column": "embedding"}``, and
    with pushed vectors they follow the training. Or give an ``encode.cache_dir`` that all nodes reach: vectors are read
    from there and kept there too, a job that was killed goes on where it was, and a run over the same rows in the same
    order embeds nothing, nor does ``embed`` after such a run.

    It is lazy, as all of Ray Data: nothing is done before the result is read or written.

    Args:
        dataset: rows with the columns that the model reads.
        settings: a pipeline file or a dict, as for ``Pipeline``. Its paths must be reached by all nodes.
        column: the name of the column of vectors, lists of d numbers in float32; null where the row was skipped.
            Rows that are pairs also get ``pair_similarity``.
        concurrency: how many actors, or the least and the most of a pool that grows with the work.
        num_cpus, num_gpus: what each actor takes. Its threads are as many as its CPUs, unless ``compute.threads`` says
            otherwise; ask for ``encode={"providers": ["cuda"]}`` to use its GPU.
        sections: more settings by section, as for ``Pipeline``.

    Raises:
        ArgumentError: the data set has the column already.
    """
    if column in (dataset.columns(fetch_if_missing=False) or []):
        raise ArgumentError(f"the data set has a column `{column}`; give column= another name")
    least, most = (concurrency, concurrency) if isinstance(concurrency, int) else concurrency
    compute = {**section(settings, "compute"), **sections.get("compute", {})}
    compute.setdefault("threads", max(1, math.floor(num_cpus)))
    dataset = dataset.repartition(target_num_rows_per_block=ROWS, strict=True)
    dataset.context.execution_options.preserve_order = True
    return dataset.map_batches(
        _Embedding,
        batch_size=None,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        fn_constructor_args=(settings, {**sections, "compute": compute}, column),
        udf_modifying_row_count=False,
    )


class _Embedding:
    """What an actor of ``embed`` does."""

    def __init__(self, settings: Any, sections: dict[str, Any], column: str) -> None:
        self._embedder = Embedder(settings, **sections)
        self._column = column

    def __call__(self, rows: pa.Table) -> pa.Table:
        if not rows.num_rows:
            return rows
        if self._column in rows.column_names:
            raise ArgumentError(f"the rows have a column `{self._column}`; give column= another name")
        made = pa.record_batch(self._embedder.embed(rows))
        for name in made.schema.names:
            rows = rows.append_column(self._column if name == "embedding" else name, made[name])
        return rows


def shards(
    dataset: Dataset,
    path: str | os.PathLike[str],
    /,
    *,
    by: str,
    count: int,
    seed: int = 0,
    rows_per_file: int = ROWS,
) -> list[int]:
    """Writes each row to the folder of its random shard, ``shard=0`` to ``shard=15``, as Parquet.

    Which shard a row belongs to is a hash of its value in ``by``, as in the settings ``[shard]``; rows with one value
    stay together. A run over ``shard=3`` reads that shard alone, where a run with ``[shard]`` reads the column of all
    rows. ``HardNegativeIterator(…, shards=path)`` finds all that it needs. Files are named by their content, so the
    same rows in the same order make the same shards, whatever node wrote them and however often Ray had to try.

    Args:
        dataset: rows, best with vectors (``embed``).
        path: a folder that does not exist yet, or a uri that pyarrow knows, such as ``s3://bucket/folder``. All nodes
            must reach it.
        by: a column that tells rows apart: texts, whole numbers or truth values, and no nulls.
        count: how many shards.
        seed: each number divides the rows in another way.
        rows_per_file: how many rows a file has on average. A task holds ``rows_per_file`` × ``count`` rows in memory.

    Returns:
        How many rows each shard has. They are also in ``shards.json``, which is written last.

    Raises:
        ArgumentError: the data set has a column ``shard``, or ``count`` or ``rows_per_file`` is below 1.
        FileError: the folder has files already, or a shard has no rows.
    """
    if count < 1 or rows_per_file < 1:
        raise ArgumentError(f"count is {count} and rows_per_file is {rows_per_file}; give 1 or more of each")
    # Where columns are not known, a look at them would embed some rows.
    _refuse_shard(dataset.columns(fetch_if_missing=False) or [])
    folder = os.fspath(path) if _is_uri(path) else os.path.abspath(path)
    files, root = _filesystem(folder)
    if files.get_file_info(fs.FileSelector(root, allow_not_found=True)):
        raise FileError(f"{folder} has files already; give another folder, or remove it")
    for index in range(count):
        files.create_dir(f"{root}/{COLUMN}={index}")

    dataset = dataset.repartition(target_num_rows_per_block=rows_per_file * count, strict=True)
    dataset.context.execution_options.preserve_order = True
    write = partial(_write, folder=folder, by=by, count=count, seed=seed)
    written = dataset.map_batches(write, batch_format="pyarrow", batch_size=None).take_all()

    # A task that was tried again has left files of the first time.
    names = {file["name"] for file in written}
    for found in files.get_file_info(fs.FileSelector(root, recursive=True)):
        if found.is_file and found.base_name not in names:
            files.delete_file(found.path)
    sizes = [0] * count
    for file in written:
        sizes[file["shard"]] += file["rows"]
    if 0 in sizes:
        raise FileError(f"shard {sizes.index(0)} of {count} has no rows; give fewer shards, or another column as by=")
    manifest = {"by": by, "count": count, "seed": seed, "rows": sizes}
    with files.open_output_stream(f"{root}/{MANIFEST}") as file:
        file.write(json.dumps(manifest).encode())
    return sizes


def _refuse_shard(columns: list[str]) -> None:
    """Readers of folders such as ``shard=3`` take their name for a column."""
    if COLUMN in columns:
        raise ArgumentError(f"the data set has a column `{COLUMN}`; drop or rename it")


def _write(rows: pa.Table, *, folder: str, by: str, count: int, seed: int) -> pa.Table:
    """Writes the rows of a block to the folders of their shards, and says what files it has written."""
    written: dict[str, list[Any]] = {"name": [], "shard": [], "rows": []}
    _refuse_shard(rows.column_names)
    files, root = _filesystem(folder)
    shard_of = np.array(shards_of(rows.select([by]), by, count, seed), np.int64)
    for shard in range(count):
        part = rows.take(pa.array(np.flatnonzero(shard_of == shard))).combine_chunks()
        if part.num_rows:
            content = hashlib.blake2b(digest_size=8)
            with pa.ipc.new_stream(_Hashed(content), part.schema.remove_metadata()) as stream:
                stream.write_table(part.replace_schema_metadata())
            name = f"{content.hexdigest()}-{uuid.uuid4().hex[:8]}.parquet"
            pq.write_table(part, f"{root}/{COLUMN}={shard}/{name}", filesystem=files)
            for column, value in zip(written.values(), (name, shard, part.num_rows), strict=True):
                column.append(value)
    return pa.table(written, schema=pa.schema({"name": pa.string(), "shard": pa.int64(), "rows": pa.int64()}))


class _Hashed(io.RawIOBase):
    """A file that keeps the hash of what is written to it."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._content.update(data)
        return len(data)


def read_manifest(path: str) -> dict[str, Any]:
    """What ``shards`` has written into a folder."""
    files, root = _filesystem(path)
    try:
        with files.open_input_stream(f"{root}/{MANIFEST}") as file:
            manifest: dict[str, Any] = json.loads(file.read())
    except (FileNotFoundError, ValueError) as error:
        raise FileError(f"{path} has no readable {MANIFEST} ({error}); write it with prosampler.ray.shards") from error
    return manifest


def _is_uri(path: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(path)


def _filesystem(path: str) -> tuple[fs.FileSystem, str]:
    if _is_uri(path):
        files, root = fs.FileSystem.from_uri(path)
        return files, root.rstrip("/")
    return fs.LocalFileSystem(), os.path.abspath(path)
