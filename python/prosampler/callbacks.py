"""Keeps the embeddings of a run up to date with the encoder under training; the trainers' callbacks use it."""

import os
from pathlib import Path
from typing import Any, Protocol

import torch

from .export import export_model
from .handle import Refresh, RefreshHandle


class HasHandle(Protocol):
    """A ``Stream``, or an adapter of ``prosampler.torch``."""

    @property
    def handle(self) -> RefreshHandle: ...

    def keep(self) -> None: ...


class EncoderRefresh:
    """Exports the encoder every n training steps to the file that the run reads its model from, and asks for a refresh.

    Whenever the trainer saves a checkpoint, the state of a run with a ``checkpoint.dir`` is kept as well.

    With several processes, the first one exports and all of them refresh. Each has a graph of its own, so all must
    swap graphs at the same step: ``wait`` must be true, which is the default then, and ``refresh.swap_after_steps`` at
    least ``stream.prefetch + 2``.

    Args:
        run: the stream or sampler whose graph is to be refreshed.
        model: the encoder; whatever ``prosampler.export.export_model`` takes.
        path: the run's ``encode.model``.
        every_steps: n.
        wait: whether training waits for the refresh; by default only with several processes.
        export: more arguments of ``export_model``.
    """

    def __init__(
        self,
        run: HasHandle,
        model: torch.nn.Module,
        path: str | os.PathLike[str],
        *,
        every_steps: int,
        wait: bool | None = None,
        **export: Any,
    ) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}; it must be at least 1")
        self.run, self.model, self.path = run, model, Path(path)
        self.every_steps, self.export = every_steps, export
        self.wait = wait
        self.refresh: Refresh | None = None
        """The last one that was asked for."""
        self._last_step = 0

    def step(self, step: int) -> bool:
        """Says that ``step`` training steps are done; whether that was a reason to refresh."""
        if step == self._last_step or step % self.every_steps != 0:
            return False
        self._last_step = step
        distributed = torch.distributed
        together = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        if not together or distributed.get_rank() == 0:
            export_model(self.model, self.path, **self.export)
        if together:
            distributed.barrier()
        self.refresh = self.run.handle.refresh()
        if together if self.wait is None else self.wait:
            self.refresh.wait()
        return True

    def save(self) -> None:
        """Keeps the run's state resumable, since the trainer saves; see ``RefreshHandle.keep``.

        Call ``keep`` first, then write the trainer's own checkpoint.
        """
        self.run.keep()

    def __getstate__(self) -> dict[str, Any]:
        # Trainers pickle their callbacks; a run is of one process.
        return {**self.__dict__, "run": None, "model": None, "refresh": None}
