"""Tables of other libraries, and ONNX Runtime's shared library."""

import importlib.util
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Protocol


class ArrowStream(Protocol):
    """Anything that exports a stream of record batches: tables of pyarrow, polars, duckdb, pandas, Lance or HF."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def check_data(data: Any) -> None:
    """Raises ``TypeError`` if ``data`` is not a table."""
    if _is_of_hugging_face(data):
        if isinstance(data, Mapping):
            raise TypeError(f"data is a {type(data).__name__}; give one of its splits, data[{next(iter(data), '')!r}]")
        return
    if any(hasattr(data, way) for way in ("__arrow_c_stream__", "scanner", "to_reader")):
        return
    remedy = "give a table of pyarrow, polars, duckdb, pandas, HF datasets or Lance, or name files with source="
    if hasattr(data, "collect"):
        # Lazy tables, of polars and Spark.
        remedy = "give data.collect()"
    raise TypeError(f"data is a {type(data).__name__}, which has no `__arrow_c_stream__`; {remedy}")


def arrow_stream(data: Any) -> ArrowStream:
    """Returns checked ``data`` as an object with ``__arrow_c_stream__``, having read a first part at most."""
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
