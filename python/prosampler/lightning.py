"""A callback for Lightning's ``Trainer``."""

import os
from typing import Any

import lightning
import torch

from .callbacks import EncoderRefresh, HasHandle


class RefreshCallback(lightning.Callback):  # type: ignore[misc]
    """Exports the encoder and refreshes the run every n steps.

    Args:
        run: the stream or sampler whose graph is to be refreshed.
        model: the encoder, which is often a part of the module that the trainer has.
        path: the run's ``encode.model``.
        every_steps: n, in optimiser steps.
        options: more arguments of ``prosampler.callbacks.EncoderRefresh`` and ``prosampler.export.export_model``.
    """

    def __init__(
        self, run: HasHandle, model: torch.nn.Module, path: str | os.PathLike[str], *, every_steps: int, **options: Any
    ) -> None:
        self.core = EncoderRefresh(run, model, path, every_steps=every_steps, **options)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        if trainer.global_step > 0:
            self.core.step(trainer.global_step)

    def on_save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Called by the trainer."""
        self.core.save()
