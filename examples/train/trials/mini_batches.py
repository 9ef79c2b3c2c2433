"""Mini-batches of a trial, over vectors that its trainer pushes, and what they cost."""

import numpy as np
import prosampler
import pyarrow as pa
import torch
from torch import Tensor

from .clock import Spent
from .task import Task, in_parts
from .trial import Trial

MANY_EPOCHS = 1_000_000
"""A trial ends by its steps."""


class MiniBatches:
    """The stream of a trial.

    Vectors come from the trainer alone, the paper's way: those of each step are pushed. When walks begin, the samples
    that no step has seen yet are embedded, and all of them every `embed_steps` steps if that is set. With `carry` the
    stale ones are mapped to the present model's space before each graph.
    """

    def __init__(self, trial: Trial, task: Task) -> None:
        self.task, self.trial = task, trial
        walk = trial.settings.get("walk", {})
        self.warm_up = walk.get("warm_up", {}).get("steps", 0)
        self.is_uniform = walk.get("sampler") == "uniform"
        self.pushed = np.zeros(task.samples, bool)
        self.carried = Carried(task.samples, trial.settings["refresh"]["every_steps"]) if trial.carry else None
        self.spent, self.step = Spent(), 0
        with self.spent:
            self.stream = self._start()

    def _start(self) -> "prosampler.Stream":
        trial, samples = self.trial, self.task.samples
        if self.warm_up or self.is_uniform:
            # They stand for vectors that are not there yet: no walk ever sees them.
            dimension = len(self.task.embed(np.arange(1))[0])
            vectors = np.random.default_rng(0).standard_normal((samples, dimension), np.float32)
        else:
            vectors = self._embed(np.arange(samples))
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        table = pa.table({"embedding": column, **self.task.columns})
        sections = {
            "encode": {"feature": "vector", "column": "embedding"},
            "compute": {"threads": 1},
            "seed": trial.seed,
            "stream": {"epochs": MANY_EPOCHS},
            **trial.settings,
        }
        sections["walk"] = {"batch_size": trial.batch, "drop_last": True, **sections.get("walk", {})}
        sections["refresh"] = {"first": "after_warm_up", **sections.get("refresh", {})}
        return prosampler.Pipeline(data=table, **sections).start(progress=False)

    def _embed(self, rows: np.ndarray) -> np.ndarray:
        self.task.model.eval()
        with torch.no_grad():
            vectors = in_parts(self.task.embed, rows)
        self.task.model.train()
        return vectors

    def next(self) -> np.ndarray:
        """The samples of the next mini-batch."""
        with self.spent:
            if not self.is_uniform and self.step >= self.warm_up:
                self._embed_what_is_due()
            mini_batch = next(self.stream)
        self.step = mini_batch.step + 1
        self.ids = np.array(mini_batch.ids)
        return self.ids

    def _embed_what_is_due(self) -> None:
        every = self.trial.embed_steps
        if every and self.step and self.step % every == 0:
            rows = np.arange(self.task.samples)
        elif self.step == self.warm_up and self.warm_up:
            rows = np.flatnonzero(~self.pushed)
        else:
            return
        if len(rows):
            self._push(rows, self._embed(rows))

    def _push(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        self.stream.handle.push_embeddings(rows, vectors)
        if self.carried:
            self.carried.take(rows, vectors)

    def push(self, vectors: Tensor) -> None:
        """Takes the vectors of the mini-batch that came last."""
        if self.is_uniform:
            return
        with self.spent:
            self._push(self.ids, vectors.numpy())
            # A step before that of the next graph, which holds what was pushed before it.
            if self.carried and self.step > self.warm_up and (self.step + 1) % self.carried.every == 0:
                rows, mapped = self.carried.stale()
                if len(rows):
                    self.stream.handle.push_embeddings(rows, mapped)
        self.pushed[self.ids] = True


class Carried:
    """The vectors of all samples, in the space of the present model as far as a linear map knows it."""

    def __init__(self, samples: int, every: int) -> None:
        self.every, self.samples = every, samples
        self.old = self.new = np.empty((0, 0), np.float32)
        self.is_new = np.zeros(samples, bool)

    def take(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if not len(self.new):
            self.old, self.new = (np.zeros((self.samples, vectors.shape[1]), np.float32) for _ in range(2))
        self.new[rows] = vectors
        self.is_new[rows] = True

    def stale(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples without a vector since the last call, and theirs by a ridge regression on those that have one."""
        known = self.is_new & self.old.any(axis=1)
        stale = np.flatnonzero(~self.is_new & self.old.any(axis=1))
        before, after = self.old[known], self.new[known]
        if len(before) and len(stale):
            ridge = before.T @ before + 0.01 * len(before) / before.shape[1] * np.eye(before.shape[1], dtype=np.float32)
            mapped = self.old[stale] @ np.linalg.solve(ridge, before.T @ after)
            self.new[stale] = mapped / np.linalg.norm(mapped, axis=1, keepdims=True).clip(min=1e-9)
        self.old, self.is_new = self.new.copy(), np.zeros(self.samples, bool)
        return stale, self.new[stale]
