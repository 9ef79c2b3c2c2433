"""A callback for Lightning's ``Trainer``."""

import os
from typing import Any

import lightning
import torch

from .callbacks import EncoderRefresh, Run, read_ahead


class RefreshCallback(lightning.Callback):  # type: ignore[misc]
    """Keeps a run and a training together: refreshes every n steps, checkpoints, and numbers in the trainer's log.

    - The encoder is exported every n steps, in time for the run's refresh: see
      ``prosampler.callbacks.EncoderRefresh``.
    - With a ``checkpoint.dir``, the run's state is in Lightning's checkpoints, and ``fit(ckpt_path=…)`` continues with
      the mini-batches of a training that was never stopped.
    - Numbers on the mini-batches are logged by ``log_dict``: see ``EncoderRefresh.log``.

    With several processes, give the trainer ``use_distributed_sampler=False``: the run shares out mini-batches itself.

    Args:
        run: a sampler or data set whose graph is to be refreshed, and whose stream has not started.
        model: the encoder, which is often a part of the module that the trainer has.
        path: the run's ``encode.model``.
        every_steps: n, in optimiser steps.
        options: more arguments of ``prosampler.callbacks.EncoderRefresh`` and ``prosampler.export.export_model``.
    """

    def __init__(
        self, run: Run, model: torch.nn.Module, path: str | os.PathLike[str], *, every_steps: int, **options: Any
    ) -> None:
        self.core = EncoderRefresh(run, model, path, every_steps=every_steps, **options)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Called by the trainer before it loads a checkpoint."""
        if stage == "fit" and not self.core.has_begun:
            self.core.begin(accumulation=trainer.accumulate_grad_batches)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Called by the trainer before the first mini-batch."""
        self.core.set_read_ahead(1 + read_ahead(trainer.train_dataloader))
        loop = trainer.fit_loop.epoch_loop
        if loop.restarting and loop.batch_progress.current.completed >= trainer.num_training_batches:
            # Saved after an epoch's end. Lightning would add one step to that epoch, and then begin the next one.
            for progress in (loop.batch_progress, loop.scheduler_progress, loop.automatic_optimization.optim_progress):
                progress.reset_on_run()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        """Called by the trainer after each mini-batch."""
        self.core.step()
        pl_module.log_dict(self.core.log(), on_step=True, on_epoch=False, batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        """Called by the trainer for its checkpoint."""
        if not self.core.has_begun or not self.core.run.epochs.handle.has_checkpoints:
            return {}
        waiting = self.core.waiting_export()
        # A tensor, since checkpoints may be read without any other objects.
        model = None if waiting is None else torch.frombuffer(bytearray(waiting.read_bytes()), dtype=torch.uint8)
        return {"state": self.core.state(), "model": model}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Called by the trainer with what its checkpoint has."""
        if state_dict:
            model = state_dict["model"]
            waiting = None if model is None else model.numpy().tobytes()
            self.core.load(state_dict["state"], waiting, trainer_skips=False)
