"""The Python side of `benches/ranks`.

`ranks.py PEER FILE URI` opens one peer, over the rows of an Arrow file or those of the server at URI. It says `ready`
and its version, or `missing` and why. Then it reads a number of mini-batches a line, takes so many, and answers with
the seconds taken.
"""

import importlib.metadata
import json
import os
import shutil
import sys
import time

BATCH_SIZE = 256
WORKERS = 2


def flight(_, uri):
    import pyarrow.flight

    client = pyarrow.flight.connect(uri.replace("http:", "grpc:"))
    ticket = pyarrow.flight.Ticket(json.dumps({"rank": 0, "world_size": 1}))
    for chunk in client.do_get(ticket):
        yield chunk.data


def mosaicml(file, _):
    import streaming

    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(local=shards(file), shuffle=True, batch_size=BATCH_SIZE)
    loader = streaming.StreamingDataLoader(dataset, batch_size=BATCH_SIZE, num_workers=WORKERS, persistent_workers=True)
    while True:
        yield from loader


def shards(file):
    """MosaicML's own copy of the rows. An interrupted run leaves nothing half-written under its name."""
    import pyarrow as pa
    import streaming

    path = f"{file}.mds"
    if not os.path.exists(path):
        partial = f"{path}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        table = pa.ipc.open_file(pa.memory_map(file)).read_all()
        with streaming.MDSWriter(out=partial, columns={"n": "int", "image": "bytes"}) as writer:
            for batch in table.to_batches():
                for row in batch.to_pylist():
                    writer.write(row)
        os.rename(partial, path)
    return path


class Rows:
    """A memory-mapped Arrow file, as a data set of PyTorch's."""

    def __init__(self, file):
        import pyarrow as pa

        table = pa.ipc.open_file(pa.memory_map(file)).read_all()
        self.numbers = table["n"].to_numpy()
        self.images = table["image"]

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, row):
        return int(self.numbers[row]), tensor(self.images[row].as_buffer())


class JoinedRows(Rows):
    """The rows of a mini-batch joined as they are read, which is faster."""

    def __getitems__(self, rows):
        return self.numbers[rows], tensor(*(self.images[row].as_buffer() for row in rows)).reshape(len(rows), -1)


def tensor(*buffers):
    import torch

    return torch.frombuffer(bytearray().join(buffers), dtype=torch.uint8)


def torch_rows(file, _):
    return data_loader(Rows(file))


def torch_joined(file, _):
    return data_loader(JoinedRows(file), collate_fn=as_it_is)


def as_it_is(mini_batch):
    return mini_batch


def data_loader(rows, **settings):
    import torch

    loader = torch.utils.data.DataLoader(
        rows, batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS, persistent_workers=True, **settings
    )
    while True:
        yield from loader


PEERS = {
    "pyarrow": ("pyarrow", flight),
    "mosaicml": ("mosaicml-streaming", mosaicml),
    "torch-rows": ("torch", torch_rows),
    "torch": ("torch", torch_joined),
}


def numbers(mini_batch):
    """The numbers of its rows."""
    return mini_batch[0] if isinstance(mini_batch, list | tuple) else mini_batch["n"]


def serve(peer, file, uri):
    package, open_peer = PEERS[peer]
    try:
        version = importlib.metadata.version(package)
        mini_batches = open_peer(file, uri)
        first = next(mini_batches)
    except ImportError as error:
        print("missing", error, flush=True)
        return
    assert len(numbers(first)) == BATCH_SIZE, f"{peer} gives {len(numbers(first))} rows"
    print("ready", version, flush=True)
    for line in sys.stdin:
        begun = time.perf_counter()
        for _ in range(int(line)):
            next(mini_batches)
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
