"""One stream, taken epoch by epoch: what the adapters for trainers share."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ._prosampler import MiniBatch
from .errors import ClosedError, RankError, StateError
from .handle import RefreshHandle
from .pipeline import Pipeline
from .stream import Stream
from .training import Training

SUPERSEDED = (
    "this iterator is over: another one has begun, a state was loaded, or the stream was closed; take mini-batches "
    "from the newest iterator alone, since a run has one order"
)


class Epochs:
    """A stream that starts when it is first needed; each ``iter`` takes one epoch of it.

    Graph and embeddings stay from epoch to epoch. Epochs only go forward: if one was left in the middle, the next one
    begins, and only ``load_state_dict`` continues it. The iterator that was left raises ``ClosedError`` from then on,
    since a run has one order. ``stream.epochs`` has no effect, since the trainer decides how many epochs there are;
    only a server's run ends after as many as it says.

    Args:
        pipeline: what to start.
        ranks: gives this process's rank, and how many ranks share every mini-batch; asked when the stream starts.
        progress: whether the start shows bars; by default in a terminal and in a notebook.
        check: called with each mini-batch that is taken, those that are passed over too, and the number of ranks.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ranks: Callable[[], tuple[int, int]],
        *,
        progress: bool | None = None,
        check: Callable[[MiniBatch, int], None] | None = None,
    ) -> None:
        self.pipeline = pipeline.for_trainer(*ranks())
        self.training: Training | None = None
        """What the trainer has done with its mini-batches, if a callback follows it."""
        self._ranks = ranks
        self._share: tuple[int, int] | None = None
        self._progress = progress
        self._check = check
        self._stream: Stream | None = None
        self._state: dict[str, Any] | None = None
        self._is_provisional = False
        """Whether the stream stands at the newest state in the checkpoint folder, which nobody has asked for yet."""
        self._epoch = 0
        """Of the mini-batch that was taken last."""
        self._within = False
        """Whether that epoch may have more."""
        self._continues = False
        self._to_skip = 0
        self._target = 0
        self._iterator = 0
        """The number of the only iterator that may take mini-batches."""

    @property
    def stream(self) -> Stream:
        """The stream. The first use starts it, which embeds the whole data set."""
        if self._is_provisional:
            # No state was loaded, so this is another run; the library says what is in the way.
            self.close()
        if self._stream is None:
            self._stream = self._open(self._state)
        return self._stream

    def start(self) -> None:
        """Starts the stream, if it has not started."""
        self._stream = self.stream

    def _open(self, state: Mapping[str, Any] | None) -> Stream:
        # Trainers may say only when they begin which process this is.
        share = self._ranks()
        pipeline = self.pipeline.for_trainer(*share)
        stream = (pipeline if state is None else pipeline.resumed(state)).start(progress=self._progress)
        self._share = share
        return stream

    @property
    def share(self) -> tuple[int, int]:
        """This process's rank, and how many there are: those that the stream started with, once it has."""
        return self._ranks() if self._share is None else self._share

    @property
    def handle(self) -> RefreshHandle:
        """Starts refreshes and takes vectors from the trainer. The first use starts the stream."""
        return self.stream.handle

    def __len__(self) -> int:
        """The number of mini-batches in an epoch. The first use starts the stream."""
        if self._stream is None and self._state is None:
            # Trainers ask for the length before they say which state they go on from.
            if (known := self.pipeline.mini_batches_per_epoch) is not None:
                return known
            self._start_provisionally()
        stream = self._stream if self._is_provisional and self._stream is not None else self.stream
        return stream.mini_batches_per_epoch

    def _start_provisionally(self) -> None:
        """Starts the stream at the newest state in the checkpoint folder, if there is one."""
        if (kept := self.pipeline.newest_kept_state()) is None:
            return
        try:
            self._stream = self._open(kept)
            self._is_provisional = True
        except StateError as refused:
            # With other settings this can only be another run; where the library refuses that too, both are of use.
            try:
                self.start()
            except StateError as error:
                raise StateError(f"{error}. To resume it: {refused}") from refused

    def __iter__(self) -> Iterator[MiniBatch]:
        # A generator, so nothing happens before the first mini-batch is asked for.
        self._iterator += 1
        now, then = self._ranks(), self.share
        if now[1] > then[1]:
            raise RankError(
                f"the stream started as rank {then[0]} of {then[1]}, and the process is rank {now[0]} of {now[1]} now; "
                "use the sampler first when all processes have joined, or give it rank and world_size"
            )
        goes_on = self._continues and self._within and self._target <= self._epoch
        self._continues = False
        if self.training is not None:
            self.training.leave()
        if not goes_on:
            while self._within:
                self._take()
            while (begun := self.stream.next_epoch()) is not None and begun < self._target:
                self._epoch, self._within = begun, True
                while self._within:
                    self._take()
            if begun is None:
                raise StateError("the run has ended; give its server a stream.epochs of as many epochs as are trained")
            self._epoch, self._within = begun, True
        own = self._iterator
        while (mini_batch := self._take()) is not None:
            if self.training is not None:
                self.training.give(mini_batch, self.state_dict())
            yield mini_batch
            if own != self._iterator:
                raise ClosedError(SUPERSEDED)

    def _take(self) -> MiniBatch | None:
        """The next mini-batch of this epoch."""
        if self.stream.next_epoch() == self._epoch:
            mini_batch = next(self.stream)
            if self._check is not None:
                self._check(mini_batch, self.share[1])
            return mini_batch
        self._within = False
        return None

    def taken(self) -> int:
        """Mini-batches that were taken from the run, over all epochs."""
        return int(self.stream.state()["step"])

    def set_epoch(self, epoch: int) -> None:
        """Makes the next ``iter`` begin with this epoch, from 0, or a later one if it has begun already."""
        self._target = epoch

    def state_dict(self) -> dict[str, Any]:
        """The state of the run after the mini-batches that were taken, for ``load_state_dict``."""
        state = self._state if self._stream is None else self._stream.state()
        return {"stream": state, "epoch": self._epoch, "within_epoch": self._within}

    def load_state_dict(self, state_dict: Mapping[str, Any], *, trainer_skips: bool = False) -> None:
        """Continues from a ``state_dict``, in the middle of its epoch; a running stream is ended.

        The pipeline must have the ``checkpoint.dir`` of the state's run. If ``trainer_skips``, the trainer takes as
        many mini-batches as the epoch has had and throws them away: ``skipped`` says how many.
        """
        try:
            state, epoch, within = (state_dict[key] for key in ("stream", "epoch", "within_epoch"))
        except KeyError as key:
            raise StateError(f"cannot resume: the state has no {key}; give what state_dict() returned") from None
        self.close()
        self._state, self._epoch, self._within = state, epoch, within
        self._continues = True
        self._to_skip = state["step"] - state["epoch_began_at_step"] if trainer_skips and within else 0
        if self.training is not None:
            self.training = Training(dict(state_dict))

    def skipped(self) -> int:
        """How many mini-batches the trainer takes first and throws away, since it has had them. 0 when asked again."""
        skipped, self._to_skip = self._to_skip, 0
        return skipped

    def follow(self, refresh: Mapping[str, Any]) -> None:
        """Follows the training from here on, with these settings of ``refresh``. The stream must not have started."""
        if self._stream is not None:
            raise StateError(
                "the stream has started, and the callback comes too late to set when it refreshes; give the callback "
                "to the trainer when that is made, and use the sampler after that"
            )
        self.pipeline = self.pipeline.with_settings(refresh=refresh)
        self.training = Training()

    def close(self) -> None:
        """Ends the stream and its threads."""
        self._iterator += 1
        if self._stream is not None:
            self._stream.close()
            self._stream = self._share = None
        self._is_provisional = False
