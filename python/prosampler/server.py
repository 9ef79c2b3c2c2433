"""Gives the mini-batches of a pipeline to other processes."""

from types import TracebackType
from typing import Self

from . import _prosampler
from .stream import log


class Server:
    """A pipeline that threads of this process serve, until ``close``, the end of a ``with`` block, or its own end."""

    def __init__(self, raw: "_prosampler.RawServer", scheme: str) -> None:
        self._raw = raw
        self._scheme = scheme

    @property
    def uri(self) -> str:
        """Where ``prosampler.connect`` finds it."""
        return f"{self._scheme}://{self._raw.address}"

    def close(self) -> None:
        """Ends the server, its run and its threads, and waits for them some seconds at most. May be called again."""
        self._raw.close(5.0)
        log()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<prosampler.Server: {self.uri}>"
