"""Controls a running pipeline."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from ._prosampler import Refresh as _Refresh
from ._prosampler import Refreshed
from ._prosampler import RefreshHandle as _RefreshHandle
from .errors import ArgumentError, Error

TICK = 0.05
"""Seconds between two looks at the signals: what Ctrl-C waits for at most."""


class Refresh:
    """A refresh that has been asked for."""

    def __init__(self, raw: _Refresh) -> None:
        self._raw = raw
        self._done: Refreshed | None = None
        self._failure: Error | None = None

    def done(self) -> bool:
        """Whether it has ended. Raises ``RefreshError`` if it has failed."""
        return self._poll(0.0) is not None

    def wait(self, timeout: float | None = None) -> Refreshed:
        """Waits until it has ended, and returns what it did.

        Args:
            timeout: seconds to wait at most; by default there is no limit.

        Raises:
            RefreshError: it failed; the run continues with the old graph.
            TimeoutError: it has not ended yet, and continues.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = TICK if end is None else min(TICK, end - time.monotonic())
            if (done := self._poll(max(left, 0.0))) is not None:
                return done
            if left <= 0:
                raise TimeoutError(f"the refresh has not ended within {timeout} s; it goes on")

    def _poll(self, seconds: float) -> Refreshed | None:
        if self._failure is not None:
            raise self._failure
        if self._done is None:
            try:
                self._done = self._raw.poll(seconds)
            except Error as error:
                # The result is delivered only once.
                self._failure = error
                raise
        return self._done

    def __repr__(self) -> str:
        try:
            return f"<prosampler.Refresh: {repr(self._done) if self.done() else 'under way'}>"
        except Error as error:
            return f"<prosampler.Refresh: failed, {error}>"


class RefreshHandle:
    """Starts refreshes and takes vectors from the trainer. It can be used from any thread.

    That of a server's run asks the server: what is refused there, or does not reach it, is a ``ServerError``.
    """

    def __init__(self, raw: _RefreshHandle) -> None:
        self._raw = raw

    def refresh(self) -> Refresh:
        """Asks for a refresh and returns at once; it begins after one that is under way.

        A refresh looks for a newer model file and for new files of the source, takes pushed vectors, builds a new
        graph and publishes it. Until then mini-batches come from the old graph.
        """
        return Refresh(self._raw.refresh())

    def refresh_now(self, timeout: float | None = None) -> Refreshed:
        """``refresh()``, then ``wait(timeout)``."""
        return self.refresh().wait(timeout)

    def push_embeddings(self, ids: Iterable[int], vectors: Any) -> None:
        """Passes on vectors that the trainer has just made, so that no inference is needed: the paper's way.

        The next refresh replaces these samples' embeddings by them. A later push for a sample replaces an earlier one.
        The vectors are copied. With ``pairs.graph_over = "cross"`` each is the anchor's and, behind it, the positive's.
        With ``refresh.when_easier``, give those of each mini-batch in one call.

        Args:
            ids: samples, as in ``mini_batch.ids``; a list, an array or a tensor.
            vectors: ``[ids, dimension]`` finite numbers, as a tensor on any device (its gradient is ignored) or an
                array. They need not have unit length.

        Raises:
            ArgumentError: the shape does not fit, or there is no such sample; nothing is taken.
            EncodeError: a vector is not finite or has no length; nothing is taken.
        """
        rows = _samples(ids)
        numbers = float32(vectors)
        expected = (len(rows), self._raw.dimension)
        if numbers.shape != expected:
            raise ArgumentError(f"the vectors have the shape {numbers.shape}; give {expected}, [ids, dimension]")
        self._raw.push_embeddings(rows, numbers)

    def push_losses(self, ids: Iterable[int], losses: Any) -> None:
        """Passes on losses, or any measure of difficulty, that the trainer has just seen of these samples.

        From the next refresh on, walks prefer to start at samples of greater loss: of four random ones that remain, at
        the one with the greatest. A sample whose loss was never pushed has the number of ``walk.weight_column`` or,
        without one, the mean of all losses. Every sample still comes once an epoch. With several processes, push the
        losses of the whole mini-batch on each.

        Args:
            ids: samples, as in ``mini_batch.ids``; a list, an array or a tensor.
            losses: ``[ids]`` finite numbers, as a tensor on any device (its gradient is ignored) or an array.

        Raises:
            ArgumentError: the shape does not fit, or there is no such sample; nothing is taken.
            EncodeError: a loss is not finite; nothing is taken.
            StateError: ``walk.sampler`` has no starts; take ``random_walk`` or ``knn``.
        """
        rows = _samples(ids)
        numbers = float32(losses)
        if numbers.shape != (len(rows),):
            raise ArgumentError(f"the losses have the shape {numbers.shape}; give {(len(rows),)}, one for each sample")
        self._raw.push_losses(rows, numbers)

    def keep(self, state: Mapping[str, Any]) -> None:
        """Keeps this state resumable until two newer ones are kept.

        Call ``keep`` first, then write the trainer's own checkpoint, with the state in it; the callbacks for trainers
        call it when their trainer saves. Two states are kept, so a trainer that is killed between the two goes on from
        its older checkpoint. What the state refers to is in ``checkpoint.dir``, on disk when this returns. Without this
        call it is removed some refreshes later. With several processes, the first one does it for all.

        Args:
            state: what ``stream.state()`` or a sampler's ``state_dict()`` returned.

        Raises:
            StateError: there is no ``checkpoint.dir``, the state is another run's, or what it refers to is gone.
        """
        self._raw.keep(dict(state.get("stream") or state))

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a ``checkpoint.dir``, in which states can be kept."""
        return self._raw.has_checkpoints

    def neighbors(self, sample: int) -> list[tuple[int, float]]:
        """The neighbors of a sample in the newest graph with their similarities, most similar first.

        Raises ``ArgumentError`` if there is no such sample, and ``StateError`` in a warm-up without a graph.
        """
        return self._raw.neighbors(_sample(sample))

    def pair_similarity(self, sample: int) -> float | None:
        """How similar a sample's anchor and positive are, by the newest embeddings; ``None`` if rows are not pairs.

        Raises what ``neighbors`` does.
        """
        return self._raw.pair_similarity(_sample(sample))

    def counts(self) -> dict[str, int]:
        """How refreshes have ended so far: ``published``, ``skipped``, ``failed``, ``cancelled``."""
        return self._raw.status()[2]

    @property
    def graph_version(self) -> int | None:
        """The newest graph, from 1; ``None`` in a warm-up without one."""
        return self._raw.status()[0]

    @property
    def model_version(self) -> int | None:
        """The model that made its embeddings, from 1. Pushed vectors count as another model."""
        return self._raw.status()[1]

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return self._raw.dimension

    def __repr__(self) -> str:
        try:
            graph_version, model_version, refreshes = self._raw.status()
        except Error as error:
            return f"<prosampler.RefreshHandle: {error}>"
        counts = ", ".join(f"{count} {how}" for how, count in refreshes.items())
        return (
            f"<prosampler.RefreshHandle: graph version {graph_version}, model version {model_version}; "
            f"refreshes: {counts}>"
        )


class HasHandle(Protocol):
    """A ``Stream``, or an adapter of ``prosampler.torch``."""

    @property
    def handle(self) -> RefreshHandle: ...


def _samples(ids: Iterable[int]) -> list[int]:
    return [_sample(id) for id in (ids.tolist() if hasattr(ids, "tolist") else ids)]


def _sample(id: int) -> int:
    if not 0 <= id < 2**32:
        raise ArgumentError(f"sample {id} does not exist; give ids as mini_batch.ids has them, from 0")
    return id


def float32(vectors: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A tensor on any device or an array, row-major. What is so already is not copied."""
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().to("cpu").float().contiguous().numpy()
    return np.ascontiguousarray(vectors, dtype=np.float32)
