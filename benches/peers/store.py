"""The Python side of `benches/store`.

`store.py FOLDER ROWS` makes the data set, and each peer's own copy of it, where FOLDER lacks them. Then it reads a
peer's name, a number of mini-batches, their size and a seed a line, gathers that, and answers with the seconds taken.
"""

import os
import shutil
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import streaming

IMAGE = 3072
ROW_GROUP = 32_768
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("image", pa.binary())])


def record_batch(generator, start, rows):
    lengths = generator.integers(100, 301, rows, np.int32)
    letters = generator.integers(97, 123, lengths.sum(), np.uint8)
    letters[::6] = 32
    texts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    images = np.arange(rows + 1, dtype=np.int32) * IMAGE
    buffers = [None, pa.py_buffer(images), pa.py_buffer(generator.bytes(rows * IMAGE))]
    columns = [
        pa.array(np.arange(start, start + rows)),
        pa.StringArray.from_buffers(rows, pa.py_buffer(texts), pa.py_buffer(letters)),
        pa.Array.from_buffers(pa.binary(), rows, buffers),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def write_parquet(path, rows):
    generator = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, ROW_GROUP):
            writer.write_batch(record_batch(generator, start, min(ROW_GROUP, rows - start)))


def write_lance(path, parquet):
    batches = pq.ParquetFile(parquet).iter_batches(8192)
    lance.write_dataset(pa.RecordBatchReader.from_batches(SCHEMA, batches), path)


def write_mosaicml(path, parquet):
    columns = {"id": "int", "text": "str", "image": "bytes"}
    with streaming.MDSWriter(out=path, columns=columns) as writer:
        for batch in pq.ParquetFile(parquet).iter_batches(8192):
            for row in batch.to_pylist():
                writer.write(row)


def once(path, write, *arguments):
    """Writes what is not there, so that an interrupted run leaves nothing half-written under its name."""
    if not os.path.exists(path):
        partial = f"{path}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        write(partial, *arguments)
        os.rename(partial, path)
    return path


def peers(folder, parquet):
    datasets.disable_progress_bars()
    slices = datasets.Dataset.from_parquet(parquet, cache_dir=f"{folder}/hf").with_format("arrow")
    table = lance.dataset(once(f"{folder}/lance", write_lance, parquet))
    streaming.base.util.clean_stale_shared_memory()
    shards = once(f"{folder}/mosaicml", write_mosaicml, parquet)
    stream = streaming.StreamingDataset(local=shards, shuffle=False, batch_size=1)
    return {
        # As slices of one row each its answer points into the file; this copies the rows together, as the others do.
        "hf": lambda ids: slices[ids].combine_chunks(),
        "hf-slices": lambda ids: slices[ids],
        "lance": lambda ids: table.take(ids),
        "mosaicml": lambda ids: [stream[i] for i in ids.tolist()],
    }


def ids_of(mini_batch):
    return [row["id"] for row in mini_batch] if isinstance(mini_batch, list) else mini_batch["id"].to_pylist()


def serve(folder, rows):
    os.makedirs(folder, exist_ok=True)
    runners = peers(folder, once(f"{folder}/rows.parquet", write_parquet, rows))
    ids = np.random.default_rng(0).integers(0, rows, 100)
    for name, gather in runners.items():
        assert ids_of(gather(ids)) == ids.tolist(), f"{name} gives other rows"
    versions = {library.__name__: library.__version__ for library in (datasets, lance, streaming, pa)}
    print("ready", ", ".join(f"{name} {version}" for name, version in versions.items()), flush=True)
    for line in sys.stdin:
        name, *numbers = line.split()
        mini_batches, size, seed = map(int, numbers)
        drawn = np.random.default_rng(seed).integers(0, rows, (mini_batches, size))
        gather = runners[name]
        begun = time.perf_counter()
        for ids in drawn:
            gather(ids)
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
