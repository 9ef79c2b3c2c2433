"""A batch sampler for loaders that ``Accelerator.prepare`` prepares.

>>> accelerator = Accelerator()
>>> sampler = AccelerateBatchSampler(accelerator=accelerator, data=table, walk={"batch_size": 256}, …)
>>> loader = accelerator.prepare(DataLoader(rows, batch_sampler=sampler))
"""

from collections.abc import Iterator
from typing import Any, cast

from accelerate import Accelerator
from accelerate.data_loader import DataLoaderDispatcher
from accelerate.state import GradientState

from .torch import HardNegativeBatchSampler


class AccelerateBatchSampler(HardNegativeBatchSampler):
    """Indices of samples that are hard to tell apart, one mini-batch for all processes of Accelerate together.

    ``walk.batch_size`` is that of all processes, and each gets an equal slice of every mini-batch: of n samples, n // W
    for each of W processes. So guards hold, and negatives are hard, across processes too, as with
    ``gather_across_devices``. All processes have equally many steps, ``len(loader)``. The slices are the same with and
    without ``split_batches``. ``even_batches`` has no effect, since no slice needs another sample.

    With ``accelerator``, ``save_state`` and ``load_state`` save and load the sampler too: with a ``checkpoint.dir``,
    the next ``iter`` continues in the middle of the epoch. Do not call ``skip_first_batches``. Use ``num_workers=0``
    then, since the sampler does not see how far workers have read ahead.

    Args:
        pipeline: a ``Pipeline``, or what makes one: a pipeline file or a dict, and ``settings``.
        accelerator: the one that prepares the loader; by default the sampler finds its rank by itself, and is not
            saved.
        split_batches: whether the loader is prepared with ``split_batches``; by default as the ``accelerator`` says,
            and false without one. For Hugging Face's ``Trainer`` give what its ``accelerator_config`` says.
        settings: as for ``HardNegativeBatchSampler``.

    Raises:
        ValueError: the accelerator has ``dispatch_batches`` or ``use_stateful_dataloader``. Where the sampler has no
            ``accelerator``, ``iter`` of a loader raises it on all processes if that was prepared with
            ``dispatch_batches``, and ``next`` if ``split_batches`` is not what it was prepared with.
    """

    def __init__(
        self,
        pipeline: Any = None,
        /,
        *,
        accelerator: Accelerator | None = None,
        split_batches: bool | None = None,
        **settings: Any,
    ) -> None:
        if accelerator is not None:
            check(accelerator.dataloader_config)
            settings |= {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
            if split_batches is None:
                split_batches = accelerator.split_batches
        super().__init__(pipeline, **settings)
        self.split_batches = bool(split_batches)
        """Whether Accelerate slices mini-batches, in place of giving each process every W-th list."""
        if not self.split_batches:
            # With a batch size, Accelerate would drop mini-batches that guards keep short, and pad an epoch's last one.
            del self.batch_size
        self._handed_out: dict[str, Any] | None = None
        if accelerator is not None:
            accelerator.register_for_checkpointing(self)
            accelerator.register_save_state_pre_hook(lambda *_: self.keep())

    def __len__(self) -> int:
        """The number of lists in an epoch. The first use starts the stream.

        That is one for each mini-batch with ``split_batches``, and otherwise ``world_size``.
        """
        return super().__len__() * self._lists_each

    @property
    def _lists_each(self) -> int:
        return 1 if self.split_batches else self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        # This is no generator: with dispatch_batches, Accelerate asks all processes for an iterator, and then only the
        # first one for mini-batches.
        loader = prepared_loader(self)
        if isinstance(loader, DataLoaderDispatcher):
            # Accelerate would take it for the loader in use from here on.
            loader.end()
            raise refusal("dispatch_batches")
        if loader is not None:
            # Accelerate supposes that an epoch's last mini-batch has the samples which full ones leave over, and
            # ``gather_for_metrics`` drops those beyond. With guards or drop_last it has others, and none is a repeat.
            loader.remainder = -1
        return self._lists()

    def _lists(self) -> Iterator[list[int]]:
        # Accelerate reads one mini-batch ahead of what it hands out.
        self.epochs.start()
        self._handed_out = self.epochs.state_dict()
        for ids in super().__iter__():
            if self.split_batches and self.world_size > 1:
                ids = cast("list[int]", _Whole(ids, self.batch_size, self.rank, self.world_size))
            # Of `world_size` lists in turn, Accelerate gives each process one: this process's slice in any case.
            for _ in range(self._lists_each):
                yield ids
            # It has handed these out when it asks for the next.
            self._handed_out = self.epochs.state_dict()
        self._handed_out = None

    def state_dict(self) -> dict[str, Any]:
        """The state of the run after the mini-batches that Accelerate has handed out."""
        return self.epochs.state_dict() if self._handed_out is None else self._handed_out

    def keep(self) -> None:
        """Keeps that state resumable, if there is a ``checkpoint.dir``; see ``RefreshHandle.keep``."""
        if self.handle.has_checkpoints:
            self.handle.keep(self.state_dict())


class _Whole:
    """A mini-batch of all processes as Accelerate sees it with ``split_batches``.

    It has the length of a full mini-batch whatever it holds, since Accelerate drops and pads shorter ones. Only this
    process's slice is there, and Accelerate asks for no other.
    """

    def __init__(self, own: list[int], size: int, rank: int, world_size: int) -> None:
        share = size // world_size
        self._own, self._size, self._slice = own, size, slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, wanted: slice) -> list[int]:
        if wanted != self._slice:
            raise ValueError(
                "the sampler has split_batches, and its loader was not prepared with it by the Accelerator of the same "
                "processes; leave split_batches out of both, or set it for both"
            )
        return self._own


def prepared_loader(source: Any) -> Any:
    """The loader of Accelerate that is being iterated, if it takes its mini-batches from ``source``.

    Args:
        source: a batch sampler, or an iterable data set.
    """
    loader = GradientState().active_dataloader
    dataset, sampler = getattr(loader, "dataset", None), getattr(loader, "batch_sampler", None)
    # Accelerate wraps batch samplers in others.
    while sampler is not None and sampler is not source:
        sampler = getattr(sampler, "batch_sampler", None)
    return loader if dataset is source or sampler is source else None


#: Why options of Accelerate are refused, and what to do.
_REFUSALS = {
    "dispatch_batches": (
        "process 0 alone would have a run, and the others no length, no state and no refreshes; leave it out: each "
        "process reads only the rows of its own slice. For one run for all of them give a RemotePipeline"
    ),
    "use_stateful_dataloader": (
        "the loader would save a second state beside the sampler's; leave it out: with accelerator=…, save_state "
        "includes the sampler"
    ),
}


def refusal(option: str) -> ValueError:
    """The error for an option of Accelerate with which a sampler cannot work."""
    return ValueError(f"{option} is set, and {_REFUSALS[option]}")


def check(dataloader_config: Any) -> None:
    """Refuses options of Accelerate with which it would lose or mix up samples.

    Args:
        dataloader_config: Accelerate's ``DataLoaderConfiguration``, or the ``accelerator_config`` of a trainer.

    Raises:
        ValueError: one of these options is set.
    """
    for option in _REFUSALS:
        if getattr(dataloader_config, option, False):
            raise refusal(option)
