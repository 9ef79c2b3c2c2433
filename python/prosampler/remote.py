"""Mini-batches of a pipeline that a server runs."""

import copy
import os
from collections.abc import Mapping
from typing import Any

from . import _prosampler
from . import settings as _settings
from ._prosampler import RawStream
from .errors import ConfigError
from .pipeline import Pipeline
from .server import Server
from .stream import Stream


def connect(
    uri: str,
    *,
    rank: int = 0,
    world_size: int = 1,
    state: Mapping[str, Any] | None = None,
    token: str | None = None,
    ca_certificate: str | os.PathLike[str] | None = None,
    prefetch: int = 2,
) -> Stream:
    """Takes a rank's place in the run of ``prosampler serve``, and returns its mini-batches.

    The stream is like that of ``Pipeline.start``, and ``close`` ends the connection, not the run. A connection that
    breaks is made again for about a minute, and nothing is lost or repeated. A server that still embeds is waited for,
    as long as it is there.

    Args:
        uri: ``http://HOST:PORT``, or ``https://`` with TLS.
        rank: which share of every mini-batch, from 0.
        world_size: how many ranks share them: the server's ``stream.world_size``.
        state: the ``state()`` of an earlier stream to go on from; by default the run's beginning.
        token: the server's token.
        ca_certificate: a PEM file with the certificate that the server's is checked by, for ``https://``.
        prefetch: how many mini-batches are asked for before the trainer wants them, at least 1.

    Raises:
        ServerError: the server cannot be reached, which shows within seconds, or refuses, with its reason.
        ConfigError: the rank, the prefetch or the uri is not possible, or the token would be sent in the clear.
        FileError: the certificate cannot be read.
    """
    pipeline = RemotePipeline(
        uri,
        rank=rank,
        world_size=world_size,
        state=state,
        token=token,
        ca_certificate=ca_certificate,
        prefetch=prefetch,
    )
    return pipeline.start()


class RemotePipeline(Pipeline):
    """A server's pipeline, where a ``Pipeline`` is asked for: ``HardNegativeDataset(RemotePipeline(uri))``.

    Adapters find the rank by themselves. Settings are the server's, ``stream.epochs`` too, which must be as many as are
    trained. Callbacks that export the encoder cannot set how a server refreshes: there ``handle.push_embeddings`` and
    ``handle.refresh`` are of use.

    Args:
        uri: where the server is; this and all other arguments are as for ``connect``, which starts such a pipeline.
            Adapters replace ``rank`` and ``world_size``.

    Raises:
        ConfigError: the rank or the prefetch is not possible. What the server refuses is raised by ``start``.
    """

    def __init__(
        self,
        uri: str,
        /,
        *,
        rank: int = 0,
        world_size: int = 1,
        state: Mapping[str, Any] | None = None,
        token: str | None = None,
        ca_certificate: str | os.PathLike[str] | None = None,
        prefetch: int = 2,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank is {rank} of {world_size}; ranks are numbered from 0")
        if prefetch < 1:
            raise ConfigError(f"prefetch is {prefetch}; it must be at least 1")
        self._uri, self._rank, self._world_size, self._prefetch = uri, rank, world_size, prefetch
        self._resume, self._token, self._ca_certificate = state, token, ca_certificate
        self._checkpoint_dir = None
        self._known: tuple[int, bool, int] | None = None

    def _served(self) -> tuple[int, bool, int]:
        """What the server says of its run, asked for once; a server that still embeds is waited for."""
        if self._known is None:
            self._known = _prosampler.served(self._uri, token=self._token, ca_certificate=self._ca_certificate)
        return self._known

    @property
    def batch_size(self) -> int:
        """Samples in a mini-batch, over all ranks. The first use asks the server."""
        return self._served()[0]

    @property
    def drop_last(self) -> bool:
        """Whether an epoch's last mini-batch is left out if it would be short. The first use asks the server."""
        return self._served()[1]

    @property
    def mini_batches_per_epoch(self) -> int:
        """The number of mini-batches in an epoch. The first use asks the server."""
        return self._served()[2]

    def resumed(self, state: Mapping[str, Any]) -> "RemotePipeline":
        """The same pipeline, continuing from a ``state()``."""
        other = copy.copy(self)
        other._resume = state
        return other

    def for_trainer(self, rank: int, world_size: int) -> "RemotePipeline":
        """The same pipeline for one of ``world_size`` processes that train together."""
        other = copy.copy(self)
        other._rank, other._world_size = rank, world_size
        return other

    def with_settings(self, **sections: Any) -> "RemotePipeline":
        """Raises ``ConfigError``: the settings are the server's."""
        wanted = ", ".join(_settings.lines(sections))
        raise ConfigError(
            f"{wanted} cannot be set here, since the settings are the server's; start the server with them. Callbacks "
            "that export the encoder need a Pipeline in the trainer's process; with a server use "
            "handle.push_embeddings() and handle.refresh()"
        )

    def serve(self, *_: Any, **__: Any) -> Server:
        """Raises ``ConfigError``: a server has it already."""
        raise ConfigError(f"{self._uri} serves this pipeline already; connect to it")

    def _open(self) -> RawStream:
        return _prosampler.connect(
            self._uri,
            rank=self._rank,
            world_size=self._world_size,
            prefetch=self._prefetch,
            state=None if self._resume is None else dict(self._resume),
            token=self._token,
            ca_certificate=self._ca_certificate,
        )

    def __repr__(self) -> str:
        return f"<prosampler.RemotePipeline: {self._uri}, rank {self._rank} of {self._world_size}>"
