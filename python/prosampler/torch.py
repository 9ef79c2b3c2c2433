"""Hard negatives for PyTorch's ``DataLoader``.

``HardNegativeBatchSampler`` yields indices for a map-style data set whose rows are those of the pipeline's source, in
the same order. ``HardNegativeDataset`` yields whole mini-batches from the pipeline itself. Neither needs a worker
(``num_workers=0``), since threads of the pipeline make mini-batches ahead of time. The batch sampler also works with
workers, which fetch the rows of its indices.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch.utils.data import IterableDataset, Sampler, get_worker_info

from ._prosampler import MiniBatch
from .agreement import Agreement
from .epochs import Epochs
from .errors import ForkError
from .handle import RefreshHandle
from .pipeline import Pipeline


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank: from ``torch.distributed`` if it is initialised, or Accelerate if it is in use."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    if "accelerate" in sys.modules:
        from accelerate import PartialState

        # Looking at Accelerate's state must not initialise it.
        if PartialState._shared_state:
            state = PartialState()
            return state.process_index, state.num_processes
    return 0, 1


def _share(given: tuple[int, int] | None) -> tuple[int, int]:
    return given or rank_and_world_size()


def _refuse_prepared(dataset: IterableDataset[Any]) -> None:
    """Raises ``ValueError`` if a loader that Accelerate has prepared is taking its items from ``dataset``."""
    if "accelerate" not in sys.modules:
        return
    from .accelerate import prepared_loader

    if (loader := prepared_loader(dataset)) is not None:
        # Accelerate would take it for the loader in use from here on.
        loader.end()
        raise ValueError(
            f"the loader of a {type(dataset).__name__} was given to Accelerator.prepare, which would share out the "
            "shares of its processes a second time; leave it out of prepare, or use AccelerateBatchSampler"
        )


class _Adapter:
    """What both adapters share: epochs of one stream, with the ranks of the trainer."""

    def __init__(
        self,
        pipeline: Pipeline | Any = None,
        /,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        progress: bool | None = None,
        **settings: Any,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError("give rank and world_size together, or neither")
        given = None if rank is None or world_size is None else (rank, world_size)
        if isinstance(pipeline, Sampler):
            raise TypeError(
                "a sampler was given in place of a pipeline, as Lightning does to share out samples; give its Trainer "
                "use_distributed_sampler=False, since the run shares out mini-batches"
            )
        if not isinstance(pipeline, Pipeline):
            pipeline = Pipeline(pipeline, **settings)
        elif settings:
            raise TypeError("give a Pipeline, or what makes one, not both")
        self.pipeline = pipeline
        self.batch_size = pipeline.batch_size
        """Samples in a mini-batch, over all ranks."""
        self.drop_last = pipeline.drop_last
        self.epochs = Epochs(pipeline, partial(_share, given), progress=progress, check=Agreement().check)
        """The stream, taken epoch by epoch; for callbacks."""

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return self.epochs.share[0]

    @property
    def world_size(self) -> int:
        """How many processes share every mini-batch."""
        return self.epochs.share[1]

    @property
    def handle(self) -> RefreshHandle:
        """Starts refreshes and takes vectors from the trainer. The first use starts the stream."""
        return self.epochs.handle

    def follow(self, refresh: Mapping[str, Any]) -> None:
        """Sets how the run refreshes, and follows the training from then on; callbacks call this."""
        self.epochs.follow(refresh)

    def __len__(self) -> int:
        """The number of mini-batches in an epoch. The first use starts the stream."""
        return len(self.epochs)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next ``iter`` begin with this epoch, from 0, or a later one if it has begun already."""
        self.epochs.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The state of the run, for ``load_state_dict``; torchdata's ``StatefulDataLoader`` calls this."""
        return self.epochs.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues from a ``state_dict``, with the ``checkpoint.dir`` of its run."""
        self.epochs.load_state_dict(state_dict)

    def keep(self) -> None:
        """Keeps the current state resumable; see ``RefreshHandle.keep``.

        Call ``keep`` first, then write the trainer's own checkpoint.
        """
        self.epochs.stream.keep()

    def close(self) -> None:
        """Ends the stream and its threads."""
        self.epochs.close()

    def __repr__(self) -> str:
        share = f", rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        return (
            f"<prosampler.torch.{type(self).__name__}: batch size {self.pipeline.batch_size}{share}, {self.pipeline!r}>"
        )


class HardNegativeBatchSampler(_Adapter, Sampler[list[int]]):
    """Indices of samples that are hard to tell apart: ``DataLoader(dataset, batch_sampler=sampler)``.

    Each ``iter`` yields one epoch, in which every sample comes once; graph and embeddings stay from one to the next.
    With several processes each takes its share of every mini-batch. Where ``Accelerator.prepare`` prepares the loader,
    as in Hugging Face's trainers, use ``prosampler.accelerate.AccelerateBatchSampler``: Accelerate would share out the
    shares a second time.

    If ``torch.distributed`` has as many ranks, they compare the first mini-batch and that of every hundredth step, and
    all raise ``RankError`` if they draw different ones.

    Args:
        pipeline: a ``Pipeline``, or what makes one: a pipeline file or a dict, and ``settings``. If only indices are
            needed, ``source.columns`` may be just the encoder's column.
        rank, world_size: this process's share; by default from ``torch.distributed`` or Accelerate, when the stream
            starts.
        progress: whether the start shows bars; by default in a terminal and in a notebook.
        settings: as for ``Pipeline``.
    """

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self.epochs.skipped()):
            yield []
        for mini_batch in self.epochs:
            yield mini_batch.ids


class HardNegativeDataset(_Adapter, IterableDataset[Any]):
    """Whole mini-batches: ``DataLoader(dataset, batch_size=None)``.

    Each item is ``transform(mini_batch)``, and each ``iter`` yields one epoch. Use at most one worker, since each would
    yield the same. With several processes each takes its share of every mini-batch; ``Accelerator.prepare`` would share
    out the shares a second time, so leave such a loader out of it, and move items to the device yourself.

    Args:
        pipeline: a ``Pipeline``, or what makes one: a pipeline file or a dict, and ``settings``.
        transform: makes an item of a mini-batch; by default ``to_torch()``, its columns by name.
        rank, world_size: this process's share; by default from ``torch.distributed`` or Accelerate, when the stream
            starts.
        progress: whether the start shows bars; by default in a terminal and in a notebook.
        settings: as for ``Pipeline``.

    Raises:
        ForkError: ``iter`` raises it in a loader with several workers.
        ValueError: ``iter`` raises it on all of several processes for a loader that ``Accelerator.prepare`` has
            prepared.
    """

    def __init__(
        self,
        pipeline: Pipeline | Any = None,
        /,
        *,
        transform: Callable[[MiniBatch], Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(pipeline, **settings)
        self._transform = transform or MiniBatch.to_torch

    def __iter__(self) -> Iterator[Any]:
        # This is no generator: Accelerate asks all processes for an iterator, and then only the first one for items.
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ForkError(
                f"{worker.num_workers} workers would each yield the same mini-batches; use DataLoader with "
                "num_workers=0: the pipeline has threads of its own"
            )
        if self.world_size > 1:
            _refuse_prepared(self)
        return self._items()

    def _items(self) -> Iterator[Any]:
        for _ in range(self.epochs.skipped()):
            yield None
        for mini_batch in self.epochs:
            yield self._transform(mini_batch)
