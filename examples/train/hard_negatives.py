"""What `simclr.py`, `simcse.py` and `graphcl.py` share: mini-batches from `prosampler`, a score, and options.

The Python package is built from this repository: `pip install .`
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import prosampler
import pyarrow as pa
import torch
from torch import Tensor

from common import arguments, held_out, knn_accuracy
from training import fit


class Sampler:
    """Mini-batches of rows, over embeddings that the trainer makes as it goes: the paper's way.

    The first graph is made of `embeddings` [rows, d]. Every `--refresh-steps` mini-batches another is made in the
    background, of the vectors that were pushed since.
    """

    def __init__(self, embeddings: Tensor, args: argparse.Namespace) -> None:
        column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.numpy().ravel()), embeddings.shape[1])
        self.stream = prosampler.Pipeline(
            data=pa.table({"embedding": column}),
            encode={"feature": "vector", "column": "embedding"},
            seed=args.seed,
            graph={"candidates": args.candidates, "neighbors": args.neighbors},
            walk={
                "sampler": args.sampler,
                "batch_size": args.batch,
                "restart_probability": args.restart,
                "drop_last": True,
            },
            refresh={"every_steps": args.refresh_steps},
            stream={"epochs": args.epochs},
        ).start(progress=False)
        self.steps = args.epochs * self.stream.mini_batches_per_epoch

    def next(self) -> list[int]:
        """The rows of the next mini-batch."""
        self.mini_batch = next(self.stream)
        return self.mini_batch.ids

    def push(self, vectors: Tensor) -> None:
        """Gives the embeddings [rows, d] of the mini-batch that came last."""
        self.stream.handle.push_embeddings(self.mini_batch.ids, vectors)

    def __str__(self) -> str:
        at = self.mini_batch
        return f"similarity {at.similarity:.3f}  graph {at.graph_version}, {at.staleness} steps old"


class Probe:
    """kNN accuracy of one row in ten, at most 2,000, by the 10 nearest among at most 8,000 that are trained on."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = np.unique(labels, return_inverse=True)[1]
        held = np.array([held_out(str(row)) for row in range(len(labels))])
        self.training = np.flatnonzero(~held)
        rng = np.random.default_rng(0)
        self.queries, self.bank = (
            rng.permutation(np.flatnonzero(of))[:most] for of, most in ((held, 2000), (~held, 8000))
        )

    def score(self, embed: Callable[[np.ndarray], Tensor]) -> str:
        """`embed` makes the embeddings [rows, d], of unit length, of some rows."""
        queries, bank = (embed(rows).numpy() for rows in (self.queries, self.bank))
        return f"kNN {knn_accuracy(queries, self.labels[self.queries], bank=(bank, self.labels[self.bank])):.3f}"


def options(doc: str, data: Path, **defaults: object) -> argparse.Namespace:
    """The options that all trainers have, and those of one."""
    args = arguments(
        doc,
        data=data,
        label="label",
        sampler="random_walk",
        **{"epochs": 10, "batch": 128, "lr": 1e-3, "temperature": 0.2, **defaults},
        candidates="auto",
        neighbors=32,
        restart=0.2,
        refresh_steps=50,
        probe_steps=50,
        seed=0,
        threads=2,
    )
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return args


def in_batches(embed: Callable[[np.ndarray], Tensor], rows: np.ndarray, size: int = 256) -> Tensor:
    """`embed` of all `rows`, `size` at a time, without gradients."""
    with torch.no_grad():
        return torch.cat([embed(rows[i : i + size]) for i in range(0, len(rows), size)])


def train(
    model: torch.nn.Module,
    probe: Probe,
    embed: Callable[[np.ndarray], Tensor],
    project: Callable[[np.ndarray], Tensor],
    loss: Callable[[np.ndarray], tuple[Tensor, Tensor]],
    args: argparse.Namespace,
) -> None:
    """Trains `model` on mini-batches of `--sampler`.

    `embed` makes what is probed and `project` what the graph is made of at first, both [rows, d] of unit length; `loss`
    returns the loss of a mini-batch, and the vectors that take the place of `project`'s.
    """
    model.eval()
    sampler = Sampler(in_batches(project, probe.training), args)
    print(f"untrained  {probe.score(lambda rows: in_batches(embed, rows))}", flush=True)
    model.train()

    def step() -> Tensor:
        value, vectors = loss(probe.training[sampler.next()])
        sampler.push(vectors)
        return value

    def score() -> str:
        return f"{sampler}  {probe.score(lambda rows: in_batches(embed, rows))}"

    fit(model, step, sampler.steps, args.lr, every=args.probe_steps, score=score)
