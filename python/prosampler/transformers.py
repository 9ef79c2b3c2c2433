"""A callback for Hugging Face's ``Trainer`` and the classes derived from it."""

import os
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .callbacks import EncoderRefresh, HasHandle


class RefreshCallback(TrainerCallback):  # type: ignore[misc]
    """Exports the encoder and refreshes the run every n steps.

    Args:
        run: the stream or sampler whose graph is to be refreshed.
        model: the encoder, which is often a part of the model that the trainer has.
        path: the run's ``encode.model``.
        every_steps: n, in optimiser steps.
        options: more arguments of ``prosampler.callbacks.EncoderRefresh`` and ``prosampler.export.export_model``.
    """

    def __init__(
        self, run: HasHandle, model: torch.nn.Module, path: str | os.PathLike[str], *, every_steps: int, **options: Any
    ) -> None:
        self.core = EncoderRefresh(run, model, path, every_steps=every_steps, **options)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the trainer."""
        self.core.step(state.global_step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the trainer, which has written its checkpoint by then."""
        self.core.save()
