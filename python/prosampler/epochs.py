"""One stream, taken epoch by epoch: what the adapters for trainers share."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._prosampler import MiniBatch
from .errors import StateError
from .handle import RefreshHandle
from .pipeline import Pipeline
from .stream import Stream

_UNBOUNDED = 2**62


class Epochs:
    """A stream that starts when it is first needed; each ``iter`` takes one epoch of it.

    Graph and embeddings stay from epoch to epoch. Epochs only go forward: if one was left in the middle, the next one
    begins, and only ``load_state_dict`` continues it. ``stream.epochs`` has no effect, since the trainer decides how
    many epochs there are.

    Args:
        pipeline: what to start.
        rank, world_size: which share of every mini-batch this process takes.
        progress: whether the start shows bars; by default in a terminal and in a notebook.
        check: called with each mini-batch that is taken, those that are passed over too.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        rank: int,
        world_size: int,
        *,
        progress: bool | None = None,
        check: Callable[[MiniBatch], None] | None = None,
    ) -> None:
        stream = {"rank": rank, "world_size": world_size, "epochs": _UNBOUNDED}
        self.pipeline = pipeline.with_settings(stream=stream)
        self._progress = progress
        self._check = check
        self._stream: Stream | None = None
        self._state: dict[str, Any] | None = None
        self._epoch = 0
        """Of the mini-batch that was taken last."""
        self._within = False
        """Whether that epoch may have more."""
        self._continues = False
        self._target = 0

    @property
    def stream(self) -> Stream:
        """The stream. The first use starts it, which embeds the whole data set."""
        if self._stream is None:
            pipeline = self.pipeline if self._state is None else self.pipeline.resumed(self._state)
            self._stream = pipeline.start(progress=self._progress)
        return self._stream

    @property
    def handle(self) -> RefreshHandle:
        """Starts refreshes and takes vectors from the trainer. The first use starts the stream."""
        return self.stream.handle

    def __len__(self) -> int:
        """The number of mini-batches in an epoch. The first use starts the stream."""
        return self.stream.mini_batches_per_epoch

    def __iter__(self) -> Iterator[MiniBatch]:
        # A generator, so nothing happens before the first mini-batch is asked for.
        goes_on = self._continues and self._within
        self._continues = False
        if not goes_on:
            while self._within:
                self._take()
            while (begun := self.stream.next_epoch()) is not None and begun < self._target:
                self._epoch, self._within = begun, True
                while self._within:
                    self._take()
            if begun is None:
                return
            self._epoch, self._within = begun, True
        while (mini_batch := self._take()) is not None:
            yield mini_batch

    def _take(self) -> MiniBatch | None:
        """The next mini-batch of this epoch."""
        if self.stream.next_epoch() == self._epoch:
            mini_batch = next(self.stream)
            if self._check is not None:
                self._check(mini_batch)
            return mini_batch
        self._within = False
        return None

    def set_epoch(self, epoch: int) -> None:
        """Makes the next ``iter`` begin with this epoch, from 0, or a later one if it has begun already."""
        self._target = epoch

    def state_dict(self) -> dict[str, Any]:
        """The state of the run after the mini-batches that were taken, for ``load_state_dict``."""
        state = self._state if self._stream is None else self._stream.state()
        return {"stream": state, "epoch": self._epoch, "within_epoch": self._within}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues from a ``state_dict``, in the middle of its epoch; a running stream is ended.

        The pipeline must have the ``checkpoint.dir`` of the state's run.
        """
        try:
            state, epoch, within = (state_dict[key] for key in ("stream", "epoch", "within_epoch"))
        except KeyError as key:
            raise StateError(f"cannot resume: the state has no {key}; give what state_dict() returned") from None
        self.close()
        self._state, self._epoch, self._within = state, epoch, within
        self._continues = True

    def close(self) -> None:
        """Ends the stream and its threads."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
