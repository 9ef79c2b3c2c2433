"""Makes a stream from settings and data."""

import asyncio
import atexit
import os
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import _prosampler
from . import settings as _settings
from ._prosampler import MiniBatch, RawStream, check_settings, newest_kept_state, wait_for_readers
from .data import arrow_streams, check_data, onnxruntime_library
from .errors import ConfigError
from .handle import TICK
from .progress import Bars
from .server import Server
from .stream import Stream, log

_UNBOUNDED = 2**62

# A start that was cancelled may still be reading a record batch of a Python generator.
atexit.register(wait_for_readers, 5.0)


class Pipeline:
    """A source, an encoder and settings, which make a stream of hard-negative mini-batches.

    Nothing is read before it starts. Each ``start()``, and each ``for mini_batch in pipeline``, is a run of its own.

    Args:
        settings: a pipeline file (TOML), or a dict like one: ``{"graph": {"neighbors": 50}}``. Relative paths in a file
            are relative to its folder, others to the working directory.
        data: rows in place of ``source.uri``: anything with ``__arrow_c_stream__``, such as tables of pyarrow, polars,
            duckdb, pandas, HF datasets and Lance, or several of these by name, ``{"questions": table, "titles":
            other}``, such as a ``DatasetDict``. They are copied into the store at each start; a reader can be read
            only once. ``pairs={"corpus": table}`` takes such a table, too.
        resume: the ``state()`` of an earlier run over the same rows and settings, with its ``checkpoint.dir``.
        sections: more settings by section, which replace those of the file or dict: ``seed=7``,
            ``graph={"neighbors": 50}``; ``source="a.parquet"`` is short for ``source={"uri": "a.parquet"}``. For tables
            by name, ``sources=[{"name": "questions", "weight": 2}]`` says what holds for each of them.

    Raises:
        ConfigError: settings are unknown or out of range; the message lists all faults.
        NotFoundError: there is no such pipeline file.
        TypeError: ``data`` is not a table.
    """

    def __init__(
        self,
        settings: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        /,
        *,
        data: Any = None,
        resume: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> None:
        self._path = settings if isinstance(settings, (str, os.PathLike)) else None
        given = settings if isinstance(settings, Mapping) else {}
        if settings is not None and settings is not self._path and settings is not given:
            message = f"settings are a {type(settings).__name__}; give a pipeline file or a dict, and a table as data="
            raise TypeError(message)
        if data is not None:
            check_data(data)
        self._data, self._resume = data, resume
        of_settings, given = _without_corpus(given)
        of_sections, sections = _without_corpus(sections)
        self._corpus = of_settings if of_sections is None else of_sections
        given = self._with_names(given, sections)
        own = list(_settings.lines(sections))
        if data is not None and any(line.startswith("source.uri=") for line in own):
            raise TypeError("give rows as data= or files as source=, not both")
        self._settings = [*_settings.lines(given), *own]
        self._take(check_settings(self._path, self._settings, data is not None))

    def _with_names(self, given: Mapping[str, Any], sections: dict[str, Any]) -> Mapping[str, Any]:
        """Puts the names of tables into the settings ``sources``, which are those of a dict, a file or a section."""
        if not isinstance(self._data, Mapping):
            return given
        sources = sections.pop("sources", None)
        if sources is None:
            sources = given.get("sources")
        if sources is None and self._path is not None and Path(self._path).is_file():
            with open(self._path, "rb") as file:
                sources = tomllib.load(file).get("sources")
        if not all(isinstance(source, Mapping) for source in sources or []):
            raise TypeError("sources are no dicts; give a list of them, each with the name of a table")
        named = {str(source.get("name")): dict(source) for source in sources or []}
        # In the order of the tables; what is said about others is refused with their names.
        named = {name: named.get(name, {"name": name}) for name in [*self._data, *named]}
        sections["sources"] = [{**source, "uri": "data"} for source in named.values()]
        return {key: value for key, value in given.items() if key != "sources"}

    def _take(self, checked: tuple[int, bool, os.PathLike[str] | None]) -> None:
        self._batch_size, self._drop_last, folder = checked
        self._checkpoint_dir = None if folder is None else Path(folder)

    @property
    def batch_size(self) -> int:
        """Samples in a mini-batch, over all ranks: ``walk.batch_size``."""
        return self._batch_size

    @property
    def drop_last(self) -> bool:
        """Whether an epoch's last mini-batch is left out if it would be short: ``walk.drop_last``."""
        return self._drop_last

    @property
    def checkpoint_dir(self) -> Path | None:
        """The folder of the setting ``checkpoint.dir``, if there is one."""
        return self._checkpoint_dir

    @property
    def mini_batches_per_epoch(self) -> int | None:
        """The number of mini-batches in an epoch, if it is known before the start, as it is of a server's run."""
        return None

    def newest_kept_state(self) -> dict[str, Any] | None:
        """The newest state that a trainer has kept in ``checkpoint.dir``; ``None`` if there is none after step 0."""
        return None if self._checkpoint_dir is None else newest_kept_state(self._checkpoint_dir)

    def _open(self) -> RawStream:
        data = _read(self._data, self._corpus)
        resume = None if self._resume is None else dict(self._resume)
        return RawStream.open(self._path, self._settings, data, resume, onnxruntime_library())

    def resumed(self, state: Mapping[str, Any]) -> "Pipeline":
        """The same pipeline, continuing from a ``state()``."""
        return self._with(resume=state)

    def with_settings(self, **sections: Any) -> "Pipeline":
        """The same pipeline with some settings replaced."""
        return self._with(**sections)

    def for_trainer(self, rank: int, world_size: int) -> "Pipeline":
        """The same pipeline for one of ``world_size`` processes that train together, without an end."""
        return self._with(stream={"rank": rank, "world_size": world_size, "epochs": _UNBOUNDED})

    def _with(self, *, resume: Mapping[str, Any] | None = None, **sections: Any) -> "Pipeline":
        other = object.__new__(Pipeline)
        other.__dict__.update(self.__dict__)
        if "sources" in sections:
            self._with_names({}, sections)
        corpus, sections = _without_corpus(sections)
        other._corpus = self._corpus if corpus is None else corpus
        other._settings = [*self._settings, *_settings.lines(sections)]
        other._resume = self._resume if resume is None else resume
        other._take(check_settings(other._path, other._settings, other._data is not None))
        return other

    def start(self, *, progress: bool | None = None) -> Stream:
        """Reads the source, embeds all samples, builds the first graph, and starts the stream.

        Args:
            progress: whether bars are shown; by default in a terminal and in a notebook.

        Raises:
            Error: what is wrong with source, model or settings. Ctrl-C ends the start.
        """
        raw = self._open()
        with _starting(raw, progress) as show:
            while not raw.poll_start(TICK):
                show()
        return Stream(raw)

    async def start_async(self, *, progress: bool | None = None) -> Stream:
        """``start()`` for an event loop, which continues meanwhile."""
        raw = self._open()
        with _starting(raw, progress) as show:
            while not raw.poll_start(0.0):
                show()
                await asyncio.sleep(TICK)
        return Stream(raw)

    def serve(
        self,
        address: str = "127.0.0.1:8815",
        *,
        token: str | None = None,
        tls: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
        insecure: bool = False,
    ) -> Server:
        """Starts the pipeline, and gives its mini-batches to ``stream.world_size`` ranks, as ``prosampler serve`` does.

        Each rank calls ``prosampler.connect``. With a ``checkpoint.dir`` the run goes on from the newest state that was
        kept there. ``data`` is read again whenever the ranks go back to a state that is not held any more.

        Args:
            address: where it listens, ``IP:PORT``; port 0 is any free one.
            token: what clients must send; at least 16 letters, digits and signs of ASCII.
            tls: PEM files: the certificate, and its private key.
            insecure: whether it may listen to other machines without a token or TLS.

        Raises:
            ConfigError: the address is none, or is open to other machines without a token or TLS.
            Error: what is wrong with source, model, settings or certificate. Ctrl-C ends the start.
        """
        if self._resume is not None:
            raise ConfigError("a server has ranks go on from the state that they give; pass it to connect(state=…)")
        data, corpus = self._data, self._corpus
        read = None if data is None and corpus is None else lambda: _read(data, corpus)
        try:
            raw = _prosampler.RawServer.start(
                self._path,
                self._settings,
                read,
                onnxruntime_library(),
                address=address,
                token=token,
                tls=tls,
                insecure=insecure,
            )
        finally:
            log()
        return Server(raw, "http" if tls is None else "https")

    def __iter__(self) -> Iterator[MiniBatch]:
        with self.start() as stream:
            yield from stream

    async def __aiter__(self) -> AsyncIterator[MiniBatch]:
        async with await self.start_async() as stream:
            async for mini_batch in stream:
                yield mini_batch

    def __repr__(self) -> str:
        parts = [] if self._path is None else [os.fspath(self._path)]
        parts += [] if self._data is None else [f"data: {_kind(self._data)}"]
        return f"<prosampler.Pipeline: {', '.join(parts + self._settings)}>"


def _without_corpus(sections: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A table that is ``pairs.corpus``, if there is one, and the sections without it."""
    pairs = sections.get("pairs")
    corpus = pairs.get("corpus") if isinstance(pairs, Mapping) else None
    if not isinstance(pairs, Mapping) or corpus is None or isinstance(corpus, (str, os.PathLike, list, tuple)):
        return None, dict(sections)
    check_data(corpus)
    return corpus, {**sections, "pairs": {name: value for name, value in pairs.items() if name != "corpus"}}


def _read(data: Any, corpus: Any) -> tuple[Any, Any]:
    return None if data is None else arrow_streams(data), None if corpus is None else arrow_streams(corpus)


def _kind(data: Any) -> str:
    if isinstance(data, Mapping):
        return f"{{{', '.join(f'{name}: {_kind(table)}' for name, table in data.items())}}}"
    return f"{type(data).__module__}.{type(data).__name__}"


@contextmanager
def _starting(raw: RawStream, progress: bool | None) -> Iterator[Callable[[], None]]:
    """Gives a function that shows how far a start is, and closes ``raw`` if the start fails or is cancelled."""
    with Bars(progress) as bars:

        def show() -> None:
            bars.show(raw.progress())
            log()

        try:
            yield show
            bars.show(raw.progress())
        except BaseException:
            raw.close(0.0)
            raise
        finally:
            log()
