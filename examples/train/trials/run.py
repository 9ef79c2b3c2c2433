"""Trains one trial."""

import time
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from training import fit

from .clock import Clock
from .mini_batches import MiniBatches
from .task import Task
from .trial import Trial

QUIET = 1_000_000_000


def run(trial: Trial, data: Path) -> dict[str, object]:
    """Trains and scores a trial on one thread. `data` is the folder of data sets.

    `sampler_share` is what mini-batches cost: processor seconds of all other threads, and of this one where it asks for
    mini-batches and makes vectors for the graph alone, over those of the training itself. `wait_share` is how long the
    trainer waited for the stream, over how long it trained.
    """
    torch.set_num_threads(1)
    torch.manual_seed(trial.seed)
    began = time.perf_counter()
    task: Task = import_module(f"trials.{trial.modality}").open_task(trial, data)
    task.model.train()
    clock = Clock()
    mini_batches = MiniBatches(trial, task)
    similarities, false_negatives = [], []

    def loss() -> torch.Tensor:
        rows, step = mini_batches.next(), mini_batches.step - 1
        # Views and dropout of a step are the same in every arm.
        torch.manual_seed(trial.seed * QUIET + step)
        made = task.step(rows, step)
        mini_batches.push(made.vectors)
        if step >= mini_batches.warm_up:
            similarities.append(similarity(made.vectors))
            false_negatives.append(made.false_negatives)
        return made.loss

    fit(task.model, loss, trial.steps, trial.lr, every=QUIET)
    shares = clock.shares(mini_batches.spent)
    mini_batches.stream.close()
    task.model.eval()
    with torch.no_grad():
        scores = {split: task.score(split) for split in (("dev", "test") if trial.test else ("dev",))}
    return {
        **scores,
        "samples": task.samples,
        "similarity": mean(similarities),
        "false_negatives": mean(false_negatives),
        **shares,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time(), 1),
    }


def similarity(vectors: torch.Tensor) -> float:
    """The mean similarity of two samples of a mini-batch, by vectors `[batch, dimension]` of unit length."""
    batch = len(vectors)
    return ((vectors.sum(dim=0).square().sum() - batch) / (batch * (batch - 1))).item()


def mean(values: list[float]) -> float | None:
    """The mean of what is a number, to five digits; `None` if nothing is."""
    numbers = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(numbers)), 5) if numbers else None
