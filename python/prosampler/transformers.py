"""A callback for Hugging Face's ``Trainer`` and the classes derived from it."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .callbacks import STATE_FILE, EncoderRefresh, Run, read_ahead
from .errors import StateError

logger = logging.getLogger(__name__)


class RefreshCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps a run and a training together: refreshes every n steps, checkpoints, and numbers in the trainer's log.

    - The encoder is exported every n steps, in time for the run's refresh: see
      ``prosampler.callbacks.EncoderRefresh``.
    - With a ``checkpoint.dir``, each of the trainer's checkpoints gets the run's state (``prosampler_state.json``), and
      ``train(resume_from_checkpoint=…)`` continues with the mini-batches of a training that was never stopped. A
      checkpoint in another folder than ``output_dir`` must also be named in ``args.resume_from_checkpoint``.
    - Numbers on the mini-batches join the trainer's log: see ``EncoderRefresh.log``. Trainers call their own reporters
      first, and these get the numbers only if the callback was given by ``attach``.

    Args:
        run: a sampler or data set whose graph is to be refreshed, and whose stream has not started.
        model: the encoder, which is often a part of the model that the trainer has.
        path: the run's ``encode.model``.
        every_steps: n, in optimiser steps.
        options: more arguments of ``prosampler.callbacks.EncoderRefresh`` and ``prosampler.export.export_model``.
    """

    def __init__(
        self, run: Run, model: torch.nn.Module, path: str | os.PathLike[str], *, every_steps: int, **options: Any
    ) -> None:
        self.core = EncoderRefresh(run, model, path, every_steps=every_steps, **options)

    def attach(self, trainer: Trainer) -> None:
        """Makes this the first of a trainer's callbacks, instead of ``callbacks=[…]``, so that reporters come after."""
        callbacks = trainer.callback_handler.callbacks
        if self in callbacks:
            callbacks.remove(self)
        callbacks.insert(0, self)
        if not self.core.has_begun:
            self.on_init_end(trainer.args, trainer.state, trainer.control)

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the trainer when it is made."""
        self.core.begin(accumulation=args.gradient_accumulation_steps)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the trainer, which has loaded its checkpoint and has not taken a mini-batch yet."""
        if not self.core.has_begun:
            self.on_init_end(args, state, control)
        # It takes the mini-batches of a whole step at once, and one more to see whether it is the last.
        self.core.set_read_ahead(args.gradient_accumulation_steps + 1 + read_ahead(kwargs.get("train_dataloader")))
        if state.global_step > 0:
            self._resume(args, state)

    def _resume(self, args: TrainingArguments, state: TrainerState) -> None:
        if self.core.run.epochs.pipeline.checkpoint_dir is None:
            logger.warning(
                "the run has no checkpoint.dir, so that the training continues with mini-batches of a new run"
            )
            return
        named = args.resume_from_checkpoint
        folders = [Path(named)] if isinstance(named, str) and Path(named).is_dir() else []
        folders.append(Path(args.output_dir, f"checkpoint-{state.global_step}"))
        folder = next((folder for folder in folders if (folder / STATE_FILE).exists()), folders[0])
        if not folder.is_dir():
            raise StateError(
                f"the checkpoint of step {state.global_step} is not in {args.output_dir}; name its folder in "
                "args.resume_from_checkpoint too"
            )
        self.core.resume(folder, trainer_skips=not args.ignore_data_skip)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Called by the trainer after each mini-batch of a step but the last."""
        self.core.step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the trainer after each step."""
        self.core.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the trainer, which has written its own part of the checkpoint by then."""
        if state.is_hyper_param_search:
            # Trials have folders of their own, and none is resumed.
            return
        self.core.save(Path(args.output_dir, f"checkpoint-{state.global_step}"))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer with what it logs."""
        if logs is None or "loss" not in logs:
            return
        numbers = self.core.log()
        logs.update(numbers)
        state.log_history[-1].update(numbers)
