"""Embeds, divides and trains on a cluster of Ray, once without faults and once with some, and compares the two.

The cluster has three nodes, all of them processes of this machine. Each round

1. embeds WordNet's definitions by the model of pipelines/text.toml on two actors (prosampler.ray.embed);
2. writes each row to the folder of its random shard (prosampler.ray.shards);
3. trains a small head on the vectors with two workers of Ray Train, whose mini-batches come from one shard each
   (HardNegativeIterator), pushes its vectors, and saves a checkpoint now and then.

In the second round a node is removed while it embeds, and a worker kills itself while it trains. Both rounds must
train on the same rows at every step.

    python examples/train/cluster.py --steps 200 --out target/cluster
"""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# What a fault looks like from within Ray is of interest to Ray alone.
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import prosampler.ray
import pyarrow.parquet as pq
import ray
import ray.data
import ray.train
import torch
from ray.cluster_utils import Cluster
from ray.train.torch import TorchTrainer, prepare_model
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
DIMENSION = 32


def start_cluster() -> tuple[Cluster, list]:
    """A head, which has no work, and two nodes, each of which can do all of it."""
    node = {"num_cpus": 2, "object_store_memory": 200_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0})
    others = [cluster.add_node(**node) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    cluster.wait_for_nodes()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # The newer reader of Ray 2.60 looks at footers in actors that do not survive the loss of a node.
    context.use_datasource_v2 = False
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return cluster, others


def embed_and_divide(data: Path, out: Path, during=contextlib.nullcontext) -> list[int]:
    """Embeds all rows and writes them as shards; `during` is entered meanwhile."""
    dataset = ray.data.read_parquet(str(data))
    settings = {"cache_dir": str(out / "embeddings")}
    embedded = prosampler.ray.embed(
        dataset, ROOT / "pipelines/text.toml", concurrency=2, num_cpus=0.5, encode=settings, store={"cache_dir": None}
    )
    with during():
        return prosampler.ray.shards(embedded, out / "shards", by="synset", count=WORKERS)


@contextlib.contextmanager
def losing(cluster: Cluster, nodes: list, embeddings: Path):
    """Removes the first node that has an actor at work, once something is embedded."""
    ended = threading.Event()

    def remove() -> None:
        while not ended.wait(0.2):
            if next(embeddings.rglob("*.arrow"), None) is None:
                continue
            busy = busy_nodes()
            for node in nodes:
                if node.node_id in busy:
                    cluster.remove_node(node, allow_graceful=False)
                    nodes.remove(node)
                    print("a node is removed while it embeds", flush=True)
                    return

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def busy_nodes() -> set[str]:
    """The nodes that have an actor of a data set."""
    actors = ray._private.state.actors().values()
    alive = [actor for actor in actors if actor["State"] == "ALIVE" and "MapWorker" in actor["ActorClassName"]]
    return {actor["Address"]["NodeID"] for actor in alive}


def cluster_size() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def settings(out: Path) -> dict:
    return {
        "seed": 42,
        "encode": {"feature": "vector", "column": "embedding"},
        "graph": {"candidates": 1000, "neighbors": 32},
        "walk": {"batch_size": 64, "restart_probability": 0.5},
        "refresh": {"every_steps": 50, "swap_after_steps": 25},
        "checkpoint": {"dir": str(out / "checkpoints")},
        "compute": {"threads": 1},
    }


def train_worker(config: dict) -> None:
    """What each worker does: a head over the vectors is trained to know a definition under dropout."""
    out = Path(config["out"])
    rank = ray.train.get_context().get_world_rank()
    batches = prosampler.ray.HardNegativeIterator(
        settings(out), shards=str(out / "shards"), transform=lambda mini_batch: mini_batch
    )
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(128, DIMENSION, bias=False))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    step = 0
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder, "model.pt"))
        head.load_state_dict(saved["head"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    model = prepare_model(head)
    with open(out / f"trained-{rank}.jsonl", "a", encoding="utf-8") as log:
        while step < config["steps"]:
            for mini_batch in batches:
                # Dropout is that of the step, whether or not the worker has begun anew.
                torch.manual_seed(1000 * step + rank)
                vectors = torch.from_dlpack(mini_batch.rows["embedding"])
                one, two = (F.normalize(model(vectors), dim=-1) for _ in range(2))
                loss = F.cross_entropy(one @ two.T / 0.1, torch.arange(len(vectors)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    pushed = torch.zeros(len(vectors), vectors.shape[1])
                    pushed[:, :DIMENSION] = one
                batches.handle.push_embeddings(mini_batch.ids, pushed)
                step += 1
                log.write(json.dumps([step, mini_batch.rows["synset"].to_list(), loss.item()]) + "\n")
                log.flush()
                if step % config["save_every"] == 0 or step == config["steps"]:
                    save(batches, rank, {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "step": step})
                if step == config["dies_at"] and rank == 1 and not (out / "died").exists():
                    (out / "died").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if step == config["steps"]:
                    break
    batches.close()


def save(batches, rank: int, trained: dict) -> None:
    """Reports a checkpoint: the trainer's own part, and that of each worker's mini-batches."""
    with tempfile.TemporaryDirectory() as folder:
        batches.save(folder)
        if rank == 0:
            torch.save(trained, Path(folder, "model.pt"))
        ray.train.report({"step": trained["step"]}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def train(out: Path, steps: int, dies_at: int | None) -> dict[tuple[int, int], list]:
    """Trains, and returns what each worker has trained on at each step, with its loss."""
    TorchTrainer(
        train_worker,
        train_loop_config={
            "out": str(out),
            "steps": steps,
            "save_every": max(1, steps // 5),
            "dies_at": dies_at,
        },
        scaling_config=ray.train.ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(
            name="heads",
            storage_path=str(out / "results"),
            failure_config=ray.train.FailureConfig(max_failures=1 if dies_at else 0),
        ),
    ).fit()
    trained = {}
    for rank in range(WORKERS):
        for line in (out / f"trained-{rank}.jsonl").read_text().splitlines():
            # A step that was trained again after the checkpoint before a fault must be the same both times.
            step, *what = json.loads(line)
            if trained.setdefault((step, rank), what) != what:
                raise SystemExit(f"step {step} of worker {rank} was not the same when it was trained again")
    return trained


def digest(trained: dict) -> str:
    return hashlib.sha256(json.dumps(sorted(trained.items())).encode()).hexdigest()[:16]


def compare_speed(out: Path) -> None:
    """Rows per second of one shard's mini-batches, and of Ray Data's own, with a local shuffle, on the same files.

    Ours are those of an epoch after the first one, without refreshes: Ray Data does nothing like them.
    """
    shard = str(out / "shards/shard=0")
    of_ray, ours = [], []
    for _ in range(3):
        begun = time.perf_counter()
        of_data = ray.data.read_parquet(shard).iter_batches(
            batch_size=64, batch_format="pyarrow", local_shuffle_buffer_size=4096
        )
        rows = sum(len(batch) for batch in of_data)
        of_ray.append(rows / (time.perf_counter() - begun))
        quiet = {**settings(out), "checkpoint": {}, "refresh": {}}
        pipeline = prosampler.Pipeline(quiet, source=shard, stream={"epochs": 2})
        with pipeline.start(progress=False) as stream:
            # Reading and the graph are done once, and not for each epoch.
            while stream.next_epoch() == 0:
                next(stream)
            begun = time.perf_counter()
            rows = sum(len(mini_batch.ids) for mini_batch in stream)
            ours.append(rows / (time.perf_counter() - begun))
    of_ray, ours = sorted(of_ray)[1], sorted(ours)[1]
    print(f"rows a second: {ours:,.0f} from hard mini-batches, {of_ray:,.0f} from Ray Data's iter_batches, shuffled")
    print(f"figure cluster.vs_iter_batches {ours / of_ray:.1f} ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data/wordnet/glosses.parquet")
    parser.add_argument("--rows", type=int, help="take so many rows; default all")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=ROOT / "target/cluster")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    data = out / "rows"
    data.mkdir()
    table = pq.read_table(arguments.data)
    # Several files, as a data set of a cluster has.
    table = table.slice(0, arguments.rows)
    for part in range(4):
        first, last = (len(table) * n // 4 for n in (part, part + 1))
        pq.write_table(table.slice(first, last - first), data / f"part-{part}.parquet")

    cluster, nodes = start_cluster()
    print(f"a cluster of {cluster_size()} nodes, {len(table):,} rows", flush=True)
    found = []
    for name in ("without faults", "with faults"):
        of_round = out / name.replace(" ", "-")
        has_faults = name == "with faults"
        begun = time.perf_counter()
        fault = partial(losing, cluster, nodes, of_round / "embeddings")
        sizes = embed_and_divide(data, of_round, fault if has_faults else contextlib.nullcontext)
        print(
            f"{name}: shards of {' and '.join(f'{size:,}' for size in sizes)} rows, embedded and written in "
            f"{time.perf_counter() - begun:.0f} s",
            flush=True,
        )
        begun = time.perf_counter()
        trained = train(of_round, arguments.steps, arguments.steps * 3 // 5 + 1 if has_faults else None)
        loss = sum(what[1] for (step, _), what in trained.items() if step == arguments.steps) / WORKERS
        died = ", and a worker was killed" if (of_round / "died").exists() else ""
        print(
            f"{name}: {arguments.steps} steps of {WORKERS} workers in {time.perf_counter() - begun:.0f} s{died}; "
            f"last loss {loss:.4f}, rows and losses {digest(trained)}",
            flush=True,
        )
        found.append(trained)
    same = found[0] == found[1]
    print("both rounds trained on the same rows at every step" if same else "the rounds differ", flush=True)
    compare_speed(out / "without-faults")
    ray.shutdown()
    cluster.shutdown()
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
