"""Keeps a run and a training together: exports, checkpoints and numbers for the log. The trainers' callbacks use it."""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from .epochs import Epochs
from .errors import StateError
from .export import export_model
from .training import PREFIX, Training

STATE_FILE = "prosampler_state.json"
MODEL_FILE = "prosampler_model.onnx"

logger = logging.getLogger(__name__)


class Run(Protocol):
    """An adapter of ``prosampler.torch``, or ``HardNegatives``."""

    @property
    def epochs(self) -> Epochs: ...

    def follow(self, refresh: Mapping[str, Any]) -> None:
        """Sets how the run refreshes, before its stream starts."""


class EncoderRefresh:
    """Exports the encoder every n steps, in time for the refresh that the run begins then.

    It sets the run's ``refresh.every_steps`` to n, and ``refresh.swap_after_steps`` to two less than half of that: the
    graph is made in the background, and used from a fixed step on, for which the stream waits if it must. So mini-
    batches depend on no clock, all processes swap graphs at the same step, and a run that is resumed from ``save`` has
    the mini-batches of one that was never stopped. That needs a graph at the start (``refresh.first`` as it is by
    default) and a ``checkpoint.dir``. With several processes, the first one exports.

    Args:
        run: a sampler or data set whose graph is to be refreshed, and whose stream has not started.
        model: the encoder; whatever ``prosampler.export.export_model`` takes.
        path: the run's ``encode.model``.
        every_steps: n, in optimiser steps.
        wait: whether the stream waits for a graph that is late. If false, graphs are used as soon as they are ready,
            no run can be repeated or resumed exactly, and several processes cannot train together.
        export: more arguments of ``export_model``.
    """

    def __init__(
        self,
        run: Run,
        model: torch.nn.Module,
        path: str | os.PathLike[str],
        *,
        every_steps: int,
        wait: bool = True,
        **export: Any,
    ) -> None:
        if every_steps < 1:
            raise ValueError(f"every_steps is {every_steps}; it must be at least 1")
        self.run, self.model, self.path = run, model, Path(path)
        self.every_steps, self.wait, self.export = every_steps, wait, export
        self._every = 0
        self._swap_after = 0
        self._read_ahead = 0
        self._waited = 0.0

    def begin(self, *, accumulation: int = 1) -> None:
        """Sets how the run refreshes. Call this before the run's stream starts, and then ``step``.

        Args:
            accumulation: mini-batches in an optimiser step.

        Raises:
            ValueError: several processes train together and ``wait`` is false, or ``every_steps`` is too small.
            StateError: the stream has started.
        """
        if not self.wait and _world_size() > 1:
            raise ValueError("several processes must use each graph from the same step on; leave wait=True")
        self._every = self.every_steps * accumulation
        self._swap_after = max(1, self._every // 2 - 2)
        swap_after = {"swap_after_steps": self._swap_after} if self.wait else {}
        self.run.follow({"every_steps": self._every, **swap_after})
        self.set_read_ahead(accumulation + 1)

    @property
    def has_begun(self) -> bool:
        """Whether ``begin`` was called."""
        return self._every > 0

    def set_read_ahead(self, mini_batches: int) -> None:
        """Says how many mini-batches the loader reads ahead of training, at most: by default a step's, and one more.

        Raises:
            ValueError: ``every_steps`` is too small for it; the message says from where on it is not.
        """
        # Before an export, the graph of the one before must be there: this many steps after it was due, it is.
        least = max(2 * mini_batches, mini_batches + 3)
        if self._every < least:
            raise ValueError(
                f"every_steps is {self.every_steps}, {self._every} mini-batches, of which the loader reads "
                f"{mini_batches} ahead; raise it to {-(-least * self.every_steps // self._every)}"
            )
        self._read_ahead = mini_batches

    @property
    def _training(self) -> Training:
        if (training := self.run.epochs.training) is None:
            raise StateError("the run is not followed; call begin() before its stream starts")
        return training

    def step(self) -> bool:
        """Says that the trainer is done with one more mini-batch; whether that was a reason to export."""
        self._training.advance()
        trained = self._trained()
        # The export must be there when the mini-batch is taken at which a refresh is due.
        due_step = trained + 1 + self._read_ahead
        if trained == 0 or due_step % self._every != 0:
            return False
        if self.run.epochs.taken() >= due_step:
            logger.warning(
                "the loader has read further ahead than %d mini-batches, so that a refresh may have missed this "
                "export; the run cannot be repeated exactly",
                self._read_ahead,
            )
        self.export_now()
        return True

    def export_now(self) -> None:
        """Exports the encoder to the run's model file."""
        _barrier()
        if _rank() == 0:
            export_model(self.model, self.path, **self.export)
        _barrier()

    def _trained(self) -> int:
        """Mini-batches of the run that were trained on."""
        state = self._training.state
        return 0 if state is None or state["stream"] is None else int(state["stream"]["step"])

    def log(self) -> dict[str, float]:
        """Numbers for the trainer's log on the mini-batches since the last call.

        Those of ``Training.log``, and ``prosampler/trainer_wait``, the seconds that the trainer has waited for mini-
        batches, and ``prosampler/refreshes_failed``, of the whole run.
        """
        stream = self.run.epochs.stream
        waited = stream.trainer_wait - self._waited
        self._waited = stream.trainer_wait
        counts = {"trainer_wait": max(waited, 0.0), "refreshes_failed": float(stream.handle.counts()["failed"])}
        return {**self._training.log(), **{PREFIX + name: count for name, count in counts.items()}}

    def state(self) -> dict[str, Any]:
        """The state after the mini-batches that were trained on, however many the loader has read ahead.

        It is kept resumable, if the run has a ``checkpoint.dir``: see ``RefreshHandle.keep``.
        """
        epochs = self.run.epochs
        state = dict(self._training.state or epochs.state_dict())
        if state["stream"] is None:
            return state
        in_epoch = state["stream"]["step"] - state["stream"]["epoch_began_at_step"]
        if in_epoch >= epochs.stream.mini_batches_per_epoch:
            state["within_epoch"] = False
        if epochs.handle.has_checkpoints:
            epochs.handle.keep(state)
        return state

    def waiting_export(self) -> Path | None:
        """The model file, if the last export is in no graph that the state refers to: a resumed run reads it again."""
        trained = self._trained()
        due_step = (trained + 1 + self._read_ahead) // self._every * self._every
        return self.path if due_step > 0 and trained <= due_step + self._swap_after else None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the state, and what else a resumed run needs, into the folder of a trainer's checkpoint.

        That is ``prosampler_state.json``, and ``prosampler_model.onnx`` if an export waits for its graph. All processes
        call this, and the first one writes. Without a ``checkpoint.dir`` nothing is written.
        """
        folder = Path(folder)
        state = self.state()
        if not self.run.epochs.handle.has_checkpoints or _rank() != 0:
            return
        if waiting := self.waiting_export():
            shutil.copyfile(waiting, folder / MODEL_FILE)
        incoming = folder / f".{STATE_FILE}"
        incoming.write_text(json.dumps(state))
        os.replace(incoming, folder / STATE_FILE)

    def resume(self, folder: str | os.PathLike[str], *, trainer_skips: bool) -> None:
        """Continues the run from what ``save`` has written. All processes call this, before the first mini-batch.

        Args:
            folder: that of the trainer's checkpoint.
            trainer_skips: whether the trainer takes the epoch's mini-batches again and throws them away.

        Raises:
            StateError: there is no state in the folder.
        """
        folder = Path(folder)
        try:
            state = json.loads((folder / STATE_FILE).read_text())
        except (OSError, ValueError) as cause:
            raise StateError(
                f"cannot resume: {folder / STATE_FILE} cannot be read ({cause}); the training was ended while it saved "
                "this checkpoint, or had no checkpoint.dir. Resume from an older checkpoint"
            ) from cause
        waiting = folder / MODEL_FILE
        model = waiting.read_bytes() if waiting.exists() and _rank() == 0 else None
        self.load(state, model, trainer_skips=trainer_skips)

    def load(self, state: Mapping[str, Any], waiting_export: bytes | None, *, trainer_skips: bool) -> None:
        """Continues the run from a ``state()``, with the export that waited for its graph, if one did."""
        # The run must not refresh before the export is there that it had then.
        self.run.epochs.close()
        _barrier()
        if waiting_export is not None and _rank() == 0:
            incoming = self.path.with_name(f".{self.path.name}")
            incoming.write_bytes(waiting_export)
            os.replace(incoming, self.path)
        _barrier()
        self.run.epochs.load_state_dict(state, trainer_skips=trainer_skips)
        self._waited = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Trainers pickle their callbacks; a run is of one process.
        return {**self.__dict__, "run": None, "model": None}


def read_ahead(loader: Any) -> int:
    """How many mini-batches the workers of a ``DataLoader`` read ahead."""
    workers = getattr(loader, "num_workers", 0)
    return workers * (getattr(loader, "prefetch_factor", None) or 2) if workers else 0


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _world_size() -> int:
    return torch.distributed.get_world_size() if _is_distributed() else 1


def _rank() -> int:
    return torch.distributed.get_rank() if _is_distributed() else 0


def _barrier() -> None:
    if _world_size() > 1:
        torch.distributed.barrier()
