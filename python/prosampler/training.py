"""Follows mini-batches from the sampler to the end of their training step, since loaders read ahead."""

from collections import deque
from typing import Any, NamedTuple

from ._prosampler import MiniBatch

PREFIX = "prosampler/"


class Given(NamedTuple):
    """A mini-batch that the loader has, and the state of the run after it."""

    state: dict[str, Any]
    facts: dict[str, float]


class Training:
    """Where a training stands in a run, and how hard its mini-batches were."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state
        """The state after the last mini-batch that was trained on, if there was one."""
        self._ahead: deque[Given] = deque()
        self._unlogged: list[dict[str, float]] = []

    def give(self, mini_batch: MiniBatch, state: dict[str, Any]) -> None:
        """A loader has taken ``mini_batch``; ``state`` is that after it."""
        known = {
            "similarity": mini_batch.similarity,
            "staleness": mini_batch.staleness,
            "graph_version": mini_batch.graph_version,
            "model_version": mini_batch.model_version,
        }
        facts = {name: float(value) for name, value in known.items() if value is not None}
        self._ahead.append(Given(state, {**facts, **mini_batch.counts}))

    def advance(self) -> None:
        """The trainer is done with the oldest mini-batch that its loader has."""
        if self._ahead:
            given = self._ahead.popleft()
            self.state = given.state
            self._unlogged.append(given.facts)

    def leave(self) -> None:
        """The loader begins anew, and what it had read ahead is lost."""
        self._ahead.clear()

    def log(self) -> dict[str, float]:
        """Numbers on the mini-batches trained on since the last call, by the name they have in a trainer's log.

        ``prosampler/similarity`` and ``prosampler/staleness`` are means, ``prosampler/refused`` and
        ``prosampler/short`` sums, ``prosampler/graph_version`` and ``prosampler/model_version`` the newest in use.
        What is not known, as in a warm-up without a graph, is left out.
        """
        facts, self._unlogged = self._unlogged, []
        logged: dict[str, float] = {}
        for name in dict.fromkeys(name for of_one in facts for name in of_one):
            values = [of_one[name] for of_one in facts if name in of_one]
            if name in ("similarity", "staleness"):
                logged[PREFIX + name] = sum(values) / len(values)
            else:
                logged[PREFIX + name] = max(values) if name.endswith("_version") else sum(values)
        return logged
