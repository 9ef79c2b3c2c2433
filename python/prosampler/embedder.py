"""Embeds tables without a run."""

import os
from collections.abc import Mapping
from typing import Any

from . import settings as _settings
from ._prosampler import RawEmbedder, RecordBatch
from .data import arrow_streams, check_data, onnxruntime_library


class Embedder:
    """Embeds tables as a run with the same settings does, for embedding elsewhere.

    With an ``encode.cache_dir``, vectors are read from there and kept there, under the model's identity and the content
    of the rows, 8,192 rows a file. So tables of 8,192 rows, in the order of the source, are what a run over all of them
    finds, and what an earlier run has embedded is not embedded again.

    Args:
        settings: a pipeline file or a dict, as for ``Pipeline``; only ``encode``, ``pairs``, ``compute`` and
            ``graph.similarity`` matter.
        sections: more settings by section, as for ``Pipeline``.

    Raises:
        ConfigError: settings are unknown or out of range; the message lists all faults.
    """

    def __init__(self, settings: str | os.PathLike[str] | Mapping[str, Any] | None = None, /, **sections: Any) -> None:
        is_file = isinstance(settings, (str, os.PathLike))
        given = {} if settings is None or is_file else settings
        lines = [*_settings.lines(given), *_settings.lines(sections)]  # type: ignore[arg-type]
        path = settings if is_file else None
        self._raw = RawEmbedder(path, lines, onnxruntime_library())  # type: ignore[arg-type]

    def embed(self, data: Any) -> RecordBatch:
        """Embeds the rows of a table; the first ones open the model.

        Args:
            data: a table of pyarrow, polars, duckdb, pandas, HF datasets or Lance, with the columns that the model
                reads.

        Returns:
            A row for each: ``embedding``, a list of d numbers in float32, of unit length for cosine; and for pairs
            ``pair_similarity``. Both are null where the row was skipped (``encode.on_bad_sample``).

        Raises:
            Error: what is wrong with rows or model. Ctrl-C ends it.
        """
        check_data(data)
        return self._raw.embed(arrow_streams(data))

    @property
    def reused(self) -> int:
        """How many rows' vectors were read from ``encode.cache_dir`` so far."""
        return self._raw.reused
