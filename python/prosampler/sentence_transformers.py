"""Hard negatives for the trainers of sentence-transformers.

>>> hard = HardNegatives(model, "encoder/model.onnx", every_steps=100)
>>> args = SentenceTransformerTrainingArguments("out", batch_sampler=hard)
>>> trainer = SentenceTransformerTrainer(model, args, train_dataset=pairs, loss=loss)
>>> hard.attach(trainer)
>>> trainer.train()
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import BatchSampler, ConcatDataset, Sampler, SequentialSampler
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from .accelerate import AccelerateBatchSampler, check
from .epochs import Epochs
from .handle import RefreshHandle
from .mining import Embeddings, mine_hard_negatives
from .pipeline import Pipeline
from .torch import HardNegativeBatchSampler, rank_and_world_size
from .transformers import RefreshCallback

__all__ = ["Embeddings", "HardNegatives", "mine_hard_negatives"]


# What the embedded column of several data sets is called.
_COLUMN = "text"


class HardNegatives:
    """A batch sampler for ``SentenceTransformerTrainingArguments(batch_sampler=…)``, and the callback beside it.

    When the training begins, the trainer asks it for a sampler over the data set: the model is exported with the
    weights that it has then, and embeddings and graph are made. ``callback`` keeps them up to date with the model.
    Batch size, ``drop_last`` and seed are those of the training arguments. With W processes, B samples a process are
    one mini-batch of W · B, of which each process gets a slice, so guards hold and negatives are hard across processes
    (``gather_across_devices``). With ``split_batches`` in the ``accelerator_config``, B samples are the mini-batch of
    all processes, and B must be a multiple of W.

    Checkpoints of the run are in ``output_dir/prosampler`` unless ``checkpoint={"dir": …}`` says otherwise, and
    ``train(resume_from_checkpoint=True)`` continues with the mini-batches of a training that was never stopped. A
    training that does not resume is refused a folder that holds another one's.

    Args:
        model: the ``SentenceTransformer`` under training.
        path: where its exports go, ``DIR/model.onnx``.
        column: the column that is embedded; by default the data set's first.
        every_steps: training steps from one refresh to the next.
        wait: whether training waits for a graph that is late: see ``prosampler.callbacks.EncoderRefresh``.
        fp16, fuse: how the model is exported: see ``prosampler.export``.
        settings: as for ``Pipeline``: ``graph={"candidates": 1000}``, ``walk={"restart_probability": 0.2}``.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        path: str | os.PathLike[str],
        *,
        column: str | None = None,
        every_steps: int = 100,
        wait: bool = True,
        fp16: bool = False,
        fuse: bool = True,
        **settings: Any,
    ) -> None:
        self.path, self.column, self.settings = Path(path), column, settings
        self.max_tokens = getattr(model, "max_seq_length", None)
        self.sampler: HardNegativeBatchSampler | None = None
        self.callback = _Callback(self, model, path, every_steps=every_steps, wait=wait, fp16=fp16, fuse=fuse)
        self._dataset: Any = None
        self._refresh: Mapping[str, Any] | None = None
        self._output_dir: Path | None = None
        self._split_batches = False

    def __call__(
        self,
        dataset: Dataset,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> Sampler[list[int]]:
        """Called by the trainer, which has loaded its checkpoint by then, if it resumes.

        Data sets to evaluate on are taken in order: those are all but the first that a trainer asks for, or if it was
        given to ``attach``, all but its ``train_dataset``.
        """
        if self._dataset is not None and dataset is not self._dataset:
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)
        self._dataset = dataset
        column = self.column or dataset.column_names[0]
        return self._begin(dataset, {}, column, batch_size, drop_last, seed)

    def mixed(
        self,
        dataset: ConcatDataset[Any],
        batch_samplers: list[BatchSampler],
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> Sampler[list[int]]:
        """The same for a ``DatasetDict``: give it as ``multi_dataset_batch_sampler=hard.mixed``, and call ``attach``.

        Each mini-batch is of one data set, as the trainer expects, which takes prompts and losses by data set. Data
        sets come in proportion to their rows, or by ``weight``: ``sources=[{"name": "questions", "weight": 2}, …]``.
        Of each, ``column`` or its first column is embedded.
        """
        batch_size, drop_last = batch_samplers[0].batch_size, batch_samplers[0].drop_last
        known = list(self._dataset.values()) if isinstance(self._dataset, Mapping) else None
        if known is not None and any(one is not other for one, other in zip(dataset.datasets, known, strict=False)):
            return BatchSampler(SequentialSampler(dataset), batch_size, drop_last)
        names = self._dataset if known is not None else [str(place) for place in range(len(dataset.datasets))]
        self._dataset = {str(name): rows for name, rows in zip(names, dataset.datasets, strict=True)}
        data = {}
        given = {source["name"]: source for source in self.settings.get("sources", ())}
        sources = []
        for name, rows in self._dataset.items():
            column = self.column or rows.column_names[0]
            source = dict(given.pop(name, {"name": name}))
            if column != _COLUMN:
                source["rename"] = {column: _COLUMN, **source.get("rename", {})}
            sources.append(source)
            data[name] = rows.select_columns([column])
        own = {"sources": [*sources, *given.values()], "walk": {"same": "source"}}
        return self._begin(data, own, _COLUMN, batch_size, drop_last, seed)

    def _begin(
        self, data: Any, settings: dict[str, Any], column: str, batch_size: int, drop_last: bool, seed: int
    ) -> Sampler[list[int]]:
        """Starts a run over ``data``, which embeds ``column``."""
        self.close()
        self.callback.core.export_now()
        _, world_size = rank_and_world_size()
        together = batch_size if self._split_batches else batch_size * world_size
        own: dict[str, Any] = {
            "seed": seed,
            "source": {"columns": [column, "source"] if "sources" in settings else [column]},
            "encode": {"model": self.path, "column": column, "max_tokens": self.max_tokens},
            "walk": {"batch_size": together, "drop_last": drop_last, **settings.get("walk", {})},
        }
        others = {key: value for key, value in self.settings.items() if key != "sources"}
        if "sources" in settings:
            others["sources"] = settings["sources"]
        if self._output_dir is not None:
            own["checkpoint"] = {"dir": self._output_dir / "prosampler"}
        pipeline = Pipeline(own, data=data, **others)
        self.sampler = AccelerateBatchSampler(pipeline, split_batches=self._split_batches)
        if self._refresh is not None:
            self.sampler.follow(self._refresh)
        return self.sampler

    @property
    def epochs(self) -> Epochs:
        """The stream, taken epoch by epoch. It exists once the trainer has asked for a sampler."""
        if self.sampler is None:
            raise RuntimeError("no sampler was asked for yet; give this object as batch_sampler= and start training")
        return self.sampler.epochs

    @property
    def handle(self) -> RefreshHandle:
        """Starts refreshes. It exists once the trainer has asked for a sampler."""
        return self.epochs.handle

    def follow(self, refresh: Mapping[str, Any]) -> None:
        """Sets how the run refreshes; the callback calls this."""
        self._refresh = refresh

    def attach(self, trainer: Trainer) -> None:
        """Gives ``callback`` to a trainer, so that its reporters get the numbers on mini-batches too."""
        self._dataset = trainer.train_dataset
        self.callback.attach(trainer)

    def close(self) -> None:
        """Ends the stream and its threads."""
        if self.sampler is not None:
            self.sampler.close()

    def __getstate__(self) -> dict[str, Any]:
        # Trainers pickle their arguments, but a run belongs to one process.
        return {**self.__dict__, "sampler": None, "callback": None, "_dataset": None}

    def __repr__(self) -> str:
        return f"<prosampler.sentence_transformers.HardNegatives: {self.path}, {self.settings}>"


class _Callback(RefreshCallback):
    """The callback of ``HardNegatives``, which learns from the trainer's arguments what the sampler must know."""

    def __init__(self, hard: HardNegatives, *args: Any, **options: Any) -> None:
        super().__init__(hard, *args, **options)
        self._hard: HardNegatives | None = hard

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        check(args.accelerator_config)
        if self._hard is not None:
            self._hard._output_dir = Path(args.output_dir)
            self._hard._split_batches = args.accelerator_config.split_batches
        super().on_init_end(args, state, control, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hard": None}
