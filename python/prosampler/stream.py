"""The running pipeline, seen from the trainer."""

import asyncio
import logging
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from ._prosampler import MiniBatch, RawStream, skip_mini_batches, take_log
from .errors import ArgumentError, Error
from .handle import TICK, RefreshHandle

_logger = logging.getLogger("prosampler")


def skip(state: Mapping[str, Any], mini_batches: int) -> dict[str, Any]:
    """The state from which a resumed run leaves out the next ``mini_batches``, as after a spike of the loss.

    They count as delivered, for triggers of refreshes, too: what follows is what would have followed them, on all ranks
    alike if all resume from this state. They are drawn and gathered, and nobody gets them.

    Args:
        state: what ``Stream.state`` or ``state_dict`` of an adapter returned.
        mini_batches: at least 0.

    Raises:
        ArgumentError: ``mini_batches`` is below 0.
        StateError: ``state`` is no state.
    """
    if mini_batches < 0:
        raise ArgumentError(f"mini_batches is {mini_batches}; give how many to leave out, 0 or more")
    if isinstance(within := state.get("stream"), dict):
        return {**state, "stream": skip(within, mini_batches)}
    return skip_mini_batches(dict(state), mini_batches)


class Stream:
    """Mini-batches, one after another: ``for mini_batch in stream``, or ``async for``.

    It ends after the last epoch, or after its first error. While it waits, other threads run, and Ctrl-C is answered
    within 100 ms. ``close()``, the end of a ``with`` block and the end of the object all end its threads. Only the
    process that started it can use it: a fork gets a ``ForkError``.
    """

    def __init__(self, raw: RawStream) -> None:
        self._raw = raw
        self.trainer_wait = 0.0
        """Seconds that the trainer has waited for mini-batches so far."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MiniBatch:
        self._wait()
        log()
        mini_batch = self._raw.take()
        if mini_batch is None:
            raise StopIteration
        return mini_batch

    def _wait(self) -> None:
        """Waits for the next mini-batch, or the end."""
        begun = time.perf_counter()
        # Python handles signals between two turns.
        while not self._raw.poll(TICK):
            pass
        self.trainer_wait += time.perf_counter() - begun

    def next_epoch(self) -> int | None:
        """Waits for the next mini-batch and returns its epoch without taking it; ``None`` at the end."""
        self._wait()
        epoch = self._raw.next_epoch()
        if epoch is None:
            # The end, or an error, which is raised here.
            self._raw.take()
        return epoch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MiniBatch:
        # A task that is cancelled here takes nothing: the mini-batch is there for the next one.
        if not self._raw.poll(0.0):
            loop = asyncio.get_running_loop()
            ready = loop.create_future()
            begun = time.perf_counter()
            self._raw.notify(lambda: loop.call_soon_threadsafe(_settle, ready))
            await ready
            self.trainer_wait += time.perf_counter() - begun
        log()
        mini_batch = self._raw.take()
        if mini_batch is None:
            raise StopAsyncIteration
        return mini_batch

    def state(self) -> dict[str, Any]:
        """The state after the mini-batches that were taken, however many more are ready.

        Call ``keep`` first, then write the trainer's own checkpoint, with the state in it, in any format; it is a few
        numbers and texts. ``Pipeline(…, resume=state)`` or ``connect(…, state=state)`` continues from there, with the
        same ``checkpoint.dir``, which must be set, and ``prosampler.skip`` leaves out a stretch.
        """
        return self._raw.state()

    def keep(self) -> None:
        """Keeps the current state by ``handle.keep(state())``. Without a ``checkpoint.dir`` nothing happens.

        Call ``keep`` first, then write the trainer's own checkpoint.
        """
        if (handle := self.handle).has_checkpoints:
            handle.keep(self.state())

    @property
    def handle(self) -> RefreshHandle:
        """Starts refreshes and takes vectors from the trainer."""
        return RefreshHandle(self._raw.handle())

    @property
    def mini_batches_per_epoch(self) -> int:
        """The number of mini-batches in an epoch; it only changes if the source gains samples."""
        return self._raw.mini_batches_per_epoch()

    @property
    def samples(self) -> int:
        """The number of samples in the data set."""
        return self._raw.samples()

    @property
    def column_names(self) -> list[str]:
        """The columns of the rows."""
        return self._raw.column_names()

    def __arrow_c_schema__(self) -> object:
        return self._raw.schema()

    def close(self) -> None:
        """Ends the run and its threads, and waits for them at most five seconds. It may be called again."""
        self._raw.close(5.0)
        log()

    @property
    def closed(self) -> bool:
        """Whether the stream was closed."""
        return self._raw.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __repr__(self) -> str:
        if self.closed:
            return "<prosampler.Stream: closed>"
        try:
            state = self.state()
            graph_version, model_version, _ = self._raw.handle().status()
            return (
                f"<prosampler.Stream: {self.samples:,} samples, {self.mini_batches_per_epoch:,} mini-batches an epoch, "
                f"epoch {state['epoch']}, step {state['step']}, graph version {graph_version}, "
                f"model version {model_version}>"
            )
        except Error as error:
            return f"<prosampler.Stream: {error}>"


def log() -> None:
    """Passes what the library has logged to ``logging``, under the name ``prosampler``."""
    for level, text in take_log():
        _logger.log(level, "%s", text)


def _settle(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
