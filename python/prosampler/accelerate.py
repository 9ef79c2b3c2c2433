"""A batch sampler for loaders that ``Accelerator.prepare`` prepares.

>>> accelerator = Accelerator()
>>> sampler = AccelerateBatchSampler(accelerator=accelerator, data=table, walk={"batch_size": 256}, …)
>>> loader = accelerator.prepare(DataLoader(rows, batch_sampler=sampler))
"""

from collections.abc import Iterator
from typing import Any

from accelerate import Accelerator

from .torch import HardNegativeBatchSampler


class AccelerateBatchSampler(HardNegativeBatchSampler):
    """Indices of samples that are hard to tell apart, one mini-batch for all processes of Accelerate together.

    ``walk.batch_size`` is that of all processes, and each gets an equal slice of every mini-batch. So guards hold, and
    negatives are hard, across processes too, as with ``gather_across_devices``. All processes have equally many steps,
    ``len(loader)``. ``even_batches`` has no effect, since no slice needs another sample.

    With ``accelerator``, ``save_state`` and ``load_state`` save and load the sampler too: with a ``checkpoint.dir``,
    the next ``iter`` continues in the middle of the epoch. Do not call ``skip_first_batches``. Use ``num_workers=0``
    then, since the sampler does not see how far workers have read ahead.

    Args:
        pipeline: a ``Pipeline``, or what makes one: a pipeline file or a dict, and ``settings``.
        accelerator: the one that prepares the loader; by default the sampler finds its rank by itself, and is not
            saved.
        settings: as for ``HardNegativeBatchSampler``.

    Raises:
        ValueError: the accelerator shares out mini-batches in a way that would lose or mix up samples.
    """

    def __init__(self, pipeline: Any = None, /, *, accelerator: Accelerator | None = None, **settings: Any) -> None:
        if accelerator is not None:
            check(accelerator.dataloader_config)
            settings |= {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
        super().__init__(pipeline, **settings)
        # With a batch size, Accelerate would drop mini-batches that guards keep short, and pad an epoch's last one.
        del self.batch_size
        self._handed_out: dict[str, Any] | None = None
        if accelerator is not None:
            accelerator.register_for_checkpointing(self)
            accelerator.register_save_state_pre_hook(lambda *_: self.keep())

    def __len__(self) -> int:
        """The number of lists in an epoch, ``world_size`` for each mini-batch. The first use starts the stream."""
        return super().__len__() * self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        # Accelerate reads one mini-batch ahead of what it hands out.
        self.epochs.start()
        self._handed_out = self.epochs.state_dict()
        for ids in super().__iter__():
            # Of `world_size` lists in turn, Accelerate gives each process one: this process's slice in any case.
            for _ in range(self.world_size):
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


def check(dataloader_config: Any) -> None:
    """Refuses options of Accelerate with which it would lose or mix up samples.

    Args:
        dataloader_config: Accelerate's ``DataLoaderConfiguration``, or the ``accelerator_config`` of a trainer.
    """
    reasons = {
        "split_batches": "it would drop mini-batches that guards keep short",
        "dispatch_batches": "it would hand out the slices of one process alone",
        "use_stateful_dataloader": "the sampler has a state of its own",
    }
    for name, reason in reasons.items():
        if getattr(dataloader_config, name, False):
            raise ValueError(f"{name} is set, and {reason}; leave it out: mini-batches are sliced without it")
