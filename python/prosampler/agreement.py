"""Whether all ranks of a job draw the same mini-batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import distributed

from ._prosampler import MiniBatch
from .errors import RankError


class Drawn(NamedTuple):
    """What a rank drew at a step."""

    step: int
    graph_version: int | None
    digest: int


class Agreement:
    """Compares the mini-batches of all ranks, since each takes its share of the same ones.

    Ranks that draw different mini-batches would train on some samples twice and on others never, without any other
    sign. The first mini-batch is compared, and then that of every hundredth step, over a process group of its own (a
    few bytes, on the CPU). Nothing is compared unless ``torch.distributed`` has as many ranks as the sampler.
    """

    def __init__(self) -> None:
        self._group: Any = None

    def check(self, mini_batch: MiniBatch, world_size: int) -> None:
        """Takes part in the comparison if one is due, which all ranks must do. Raises ``RankError`` on all of them.

        Args:
            mini_batch: the one that this rank has drawn.
            world_size: how many ranks share it.
        """
        if self._group is not None and mini_batch.step % _EVERY > 0:
            return
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        if world_size == 1 or distributed.get_world_size() != world_size:
            return
        if self._group is None:
            # The trainer's own group may be of GPUs that are not chosen yet.
            self._group = distributed.new_group(backend="gloo")
        drawn: list[Any] = [None] * world_size
        mine = Drawn(mini_batch.step, mini_batch.graph_version, mini_batch.digest)
        distributed.all_gather_object(drawn, mine, group=self._group)
        if message := difference(drawn):
            raise RankError(message)


def difference(drawn: Sequence[Drawn]) -> str | None:
    """How the ranks differ, and what to do; ``None`` if they agree."""
    first = drawn[0]
    for rank, other in enumerate(drawn):
        if other == first:
            continue
        if other.step != first.step:
            found = f"rank 0 is at step {first.step} and rank {rank} at step {other.step}"
            remedy = "resume all ranks from the same state, and take equally many mini-batches on each"
        elif other.graph_version != first.graph_version:
            found = f"rank 0 uses graph {first.graph_version} and rank {rank} graph {other.graph_version}"
            remedy = "start refreshes by settings alone (refresh.every_steps, for one), which are alike on all ranks"
        else:
            found = f"the samples or graphs of ranks 0 and {rank} differ"
            remedy = (
                "give all ranks the same data, settings, seed, model and pushed vectors, and in store.cache_dir a "
                "folder that all of them reach, so that they read the same embeddings"
            )
        return f"the ranks draw different mini-batches: at step {first.step}, {found}; {remedy}"
    return None


_EVERY = 100
