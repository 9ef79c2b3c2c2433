"""Tables of other libraries, and ONNX Runtime's shared library."""

import importlib.util
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

_SPLITS = ("train", "validation", "dev", "test")


class ArrowStream(Protocol):
    """Anything that exports a stream of record batches: tables of pyarrow, polars, duckdb, pandas, Lance or HF."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def check_data(data: Any) -> None:
    """Raises ``TypeError`` if ``data`` is neither a table nor several by name."""
    if isinstance(data, Mapping):
        if _is_of_hugging_face(data) and (split := next((name for name in data if name in _SPLITS), None)) is not None:
            remedy = f"give one of them, data[{split!r}], or dict(data) to take the rows of all"
            raise TypeError(f"data is a {type(data).__name__} of splits; {remedy}")
        for name, table in data.items():
            if not isinstance(name, str):
                raise TypeError(f"data has the name {name!r}; name each table by a text")
            if isinstance(table, Mapping):
                raise TypeError(f"data[{name!r}] is a {type(table).__name__}; give a table")
            check_data(table)
        if not data:
            raise TypeError("data has no tables; give one at least")
        return
    if _is_of_hugging_face(data):
        return
    if any(hasattr(data, way) for way in ("__arrow_c_stream__", "scanner", "to_reader")):
        return
    remedy = "give a table of pyarrow, polars, duckdb, pandas, HF datasets or Lance, or name files with source="
    if hasattr(data, "collect"):
        # Lazy tables, of polars and Spark.
        remedy = "give data.collect()"
    raise TypeError(f"data is a {type(data).__name__}, which has no `__arrow_c_stream__`; {remedy}")


def arrow_streams(data: Any) -> ArrowStream | dict[str, ArrowStream]:
    """Returns checked ``data`` as objects with ``__arrow_c_stream__``, having read a first part of each at most."""
    if isinstance(data, Mapping):
        return {name: _arrow_stream(table) for name, table in data.items()}
    return _arrow_stream(data)


def _arrow_stream(data: Any) -> ArrowStream:
    if _is_of_hugging_face(data):
        return _read_hugging_face(data)
    if hasattr(data, "__arrow_c_stream__"):
        return data  # type: ignore[no-any-return]
    # Data sets of pyarrow and Lance, and their scanners.
    scanner = data.scanner() if hasattr(data, "scanner") else data
    return scanner.to_reader()  # type: ignore[no-any-return]


def _is_of_hugging_face(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "with_format")


def _read_hugging_face(data: Any) -> ArrowStream:
    """Reads a data set part by part, in the order of ``shuffle`` and ``select``; also a streamed one."""
    import pyarrow as pa

    parts = data.with_format("arrow").iter(batch_size=10_000)
    first = next(parts, None)
    if first is None:
        return pa.schema([]).empty_table()  # type: ignore[no-any-return]
    batches = (batch for part in chain([first], parts) for batch in part.to_batches())
    return pa.RecordBatchReader.from_batches(first.schema, batches)  # type: ignore[no-any-return]


def onnxruntime_library() -> Path | None:
    """Finds the shared library of the installed ``onnxruntime`` or ``onnxruntime-gpu`` without importing it.

    ``None`` if there is none, or if ``ORT_DYLIB_PATH`` names another.
    """
    if os.environ.get("ORT_DYLIB_PATH"):
        return None
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):
        return None
    for folder in spec.submodule_search_locations or [] if spec else []:
        for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll"):
            found = sorted(Path(folder, "capi").glob(pattern))
            if found:
                return found[-1]
    return None
