"""What a host needs for N samples, from measured rates: printed for 10⁸, 10⁹ and 10¹⁰, and checked by real runs.

    python benches/scale.py --table                       # hosts, memory, hours and cost, by the rates below
    python benches/scale.py                               # three real runs, the last of which the others predict

A run has random clustered vectors of `--dimension` numbers in one Parquet file: it stores them, takes them as
embeddings in i8, builds the paper's graph with `--candidates` and `--neighbors`, draws mini-batches, and refreshes the
graph. What depends on a model or a machine is a parameter; embedding and price are examples, not measurements.
"""

import argparse
import math
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

GB = 1e9


@dataclass
class Load:
    """What one host has."""

    samples: float
    dimension: int = 768
    candidates: int = 1000
    neighbors: int = 32
    row_bytes: float = 1000.0
    """Of a row in the store: a passage of text, for one."""


@dataclass
class Rates:
    """What a host does in a second."""

    products: float
    """Multiplications of the graph's kernel in i8, all cores together."""
    embedded: float
    """Samples through the model: an example, a small encoder on one GPU."""
    stored: float
    """Bytes of rows read, decoded and written to the store."""
    walked: float
    """Samples drawn, and their rows gathered."""


def bytes_of(load: Load) -> dict[str, float]:
    """Bytes of a host: `store` on disk, the others in memory, two tables and two graphs, as during a refresh."""
    embeddings = load.samples * (load.dimension + 4)
    graph = load.samples * load.neighbors * 8
    return {
        "store": load.samples * load.row_bytes,
        "embeddings": 2 * embeddings,
        "graph": 2 * graph,
        "walk": load.samples * 40,
    }


def seconds_of(load: Load, rates: Rates) -> dict[str, float]:
    """Seconds of each stage on a host; a refresh with a newer model takes `embed` and `build`."""
    return {
        "store": load.samples * load.row_bytes / rates.stored,
        "embed": load.samples / rates.embedded,
        "build": load.samples * load.candidates * load.dimension / rates.products,
        "walk": load.samples / rates.walked,
    }


def table(args: argparse.Namespace) -> None:
    """Prints hosts, bytes, hours and cost for three sizes of data set."""
    rates = Rates(args.products * 1e9, args.embedded, args.stored * 1e6, args.walked * 1e6)
    print("| samples | hosts | a host: samples | store | memory | embed | build | walk an epoch | cost of a refresh |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for samples in (1e8, 1e9, 1e10):
        hosts = 1
        while True:
            load = Load(samples / hosts, args.dimension, args.candidates, args.neighbors, args.row_bytes)
            size = bytes_of(load)
            memory = sum(size.values()) - size["store"]
            if memory <= args.memory * GB:
                break
            hosts *= 2
        took = seconds_of(load, rates)
        hours = (took["embed"] + took["build"]) / 3600
        print(
            f"| 10{str(len(str(int(samples))) - 1).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))} | {hosts} | "
            f"{load.samples / 1e6:,.0f} M | {size['store'] / GB:,.0f} GB | {memory / GB:,.0f} GB | "
            f"{took['embed'] / 3600:.1f} h | {took['build'] / 60:.1f} min | {took['walk'] / 60:.1f} min | "
            f"{hosts * hours * args.price:,.0f} $ |"
        )


class Memory:
    """The most memory that this process had, without mapped files."""

    def __init__(self) -> None:
        self.most = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            self.most = max(self.most, self.now())

    @staticmethod
    def now() -> float:
        with open("/proc/self/status") as status:
            return 1024.0 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    def end(self) -> float:
        self._ended.set()
        return self.most


def write(path: Path, rows: int, dimension: int) -> None:
    # `--table` needs none of these.
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    generator = np.random.default_rng(0)
    centers = generator.standard_normal((1000, dimension), dtype=np.float32)
    schema = pa.schema({"vector": pa.list_(pa.float32(), dimension)})
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for begin in range(0, rows, 250_000):
            count = min(250_000, rows - begin)
            points = generator.standard_normal((count, dimension), dtype=np.float32)
            points += centers[generator.integers(0, 1000, count)]
            column = pa.FixedSizeListArray.from_arrays(pa.array(points.reshape(-1)), dimension)
            writer.write_table(pa.table({"vector": column}, schema=schema))


@dataclass
class Run:
    """What a real run took."""

    seconds: dict[str, float]
    memory: float
    disk: float


def run(rows: int, args: argparse.Namespace, folder: Path) -> Run:
    from prosampler.stream import Stream

    path = folder / f"{rows}.parquet"
    if not path.exists():
        write(path, rows, args.dimension)
    settings = {
        "source": {"uri": str(path)},
        "store": {"cache_dir": str(folder / f"store-{rows}")},
        "encode": {"feature": "vector", "column": "vector", "storage": "i8"},
        "graph": {"candidates": args.candidates, "neighbors": args.neighbors, "precision": "i8"},
        "walk": {"batch_size": 1024},
    }
    # The first start writes the store, and what is on its way to the disk would slow the rest down.
    os.sync()
    raw, first = start(settings)
    Stream(raw).close()
    os.sync()

    before = Memory.now()
    memory = Memory()
    raw, seconds = start(settings)
    seconds["reading"] = first["reading"]
    with Stream(raw) as stream:
        begun, drawn = time.perf_counter(), 0
        for mini_batch in stream:
            drawn += len(mini_batch.ids)
            if drawn >= min(rows // 2, 1_000_000):
                break
        seconds["delivery"] = (time.perf_counter() - begun) * rows / drawn
        seconds["refresh"] = stream.handle.refresh_now().seconds
        disk = sum(file.stat().st_size for file in (folder / f"store-{rows}").rglob("*") if file.is_file())
    return Run(seconds, memory.end() - before, disk)


def start(settings: dict) -> tuple:
    """A run that has started, and the seconds of its stages."""
    from prosampler import Pipeline

    # Of a small run no stage may be seen.
    seconds = dict.fromkeys(("reading", "embedding", "graph"), 0.0)
    raw = Pipeline(settings)._open()
    stage, begun = "reading", time.perf_counter()
    while not raw.poll_start(0.02):
        stages = raw.progress()
        current = stages[-1][0] if stages else stage
        if current != stage:
            now = time.perf_counter()
            seconds[stage] = now - begun
            stage, begun = current, now
    seconds[stage] = time.perf_counter() - begun
    return raw, seconds


def predicted(known: list[tuple[int, float]], rows: int) -> float:
    """Seconds for so many rows, from runs of other sizes.

    From one run they are in proportion. From two, the seconds a row grow by as much for every factor of N: more and
    more of what is read comes from memory, and from farther pages of it, in place of the processor's caches.
    """
    (few, seconds), *more = known
    a_row = seconds / few
    for many, seconds in more:
        growth = (seconds / many - a_row) / math.log(many / few)
        a_row = max(a_row + growth * math.log(rows / few), 0.0)
    return max(rows * a_row, 1e-3)


def compare(args: argparse.Namespace) -> None:
    """Runs each size, and predicts each from the one or two before it."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        runs = {rows: run(rows, args, Path(folder)) for rows in args.rows}
    (base, first), *others = runs.items()
    print(f"{os.cpu_count()} cores, {args.dimension} numbers, M = {args.candidates:,}, K = {args.neighbors}\n")
    print("| samples | " + " | ".join(first.seconds) + " | memory | store |")
    print("|---:" * (len(first.seconds) + 3) + "|")
    for rows, of in runs.items():
        took = " | ".join(f"{seconds:.1f} s" for seconds in of.seconds.values())
        print(f"| {rows:,} | {took} | {of.memory / GB:.2f} GB | {of.disk / GB:.2f} GB |")
    products = base * args.candidates * args.dimension / max(first.seconds["graph"], 1e-3)
    print(f"\nfigure scale.products {products / 1e9:.0f} G/s")
    for place, (rows, of) in enumerate(others, 1):
        load = Load(rows, args.dimension, args.candidates, args.neighbors, 4 * args.dimension)
        size = bytes_of(load)
        for name in first.seconds:
            known = [(before, runs[before].seconds[name]) for before in args.rows[max(0, place - 2) : place]]
            print(f"figure scale.{name}.{rows} {of.seconds[name] / predicted(known, rows):.2f} of predicted")
        in_memory = sum(size.values()) - size["store"]
        print(f"figure scale.memory.{rows} {of.memory / in_memory:.2f} of predicted")
        print(f"figure scale.disk.{rows} {of.disk / size['store']:.2f} of predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 2_500_000, 10_000_000], help="real runs")
    parser.add_argument("--table", action="store_true", help="print hosts, memory, hours and cost instead")
    parser.add_argument("--dimension", type=int, help="numbers of an embedding: 128, and of the table 768")
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--neighbors", type=int, default=32)
    parser.add_argument("--row-bytes", type=float, default=1000, help="of a row in the store")
    parser.add_argument("--products", type=float, default=350, help="10⁹ multiplications a second of a host, in i8")
    parser.add_argument("--embedded", type=float, default=5000, help="samples a second through the model of a host")
    parser.add_argument("--stored", type=float, default=500, help="MB a second into the store")
    parser.add_argument("--walked", type=float, default=0.14, help="10⁶ samples drawn and gathered a second")
    parser.add_argument("--memory", type=float, default=200, help="GB of memory of a host that a run may take")
    parser.add_argument("--price", type=float, default=4, help="$ an hour of a host")
    parser.add_argument("--folder", default=None, help="where the data of real runs lie meanwhile")
    args = parser.parse_args()
    args.dimension = args.dimension or (768 if args.table else 128)
    if args.table:
        table(args)
    else:
        compare(args)


if __name__ == "__main__":
    main()
