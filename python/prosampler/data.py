"""Tables of other libraries, and ONNX Runtime's shared library."""

import importlib.util
import os
from pathlib import Path
from typing import Any, Protocol


class ArrowStream(Protocol):
    """Whatever exports a stream of record batches: tables of pyarrow, polars, duckdb, pandas, Lance, HF datasets."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def arrow_stream(data: Any) -> ArrowStream:
    """``data`` as an object with ``__arrow_c_stream__``. Nothing is read yet.

    Raises ``TypeError`` for what is no table.
    """
    if type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "with_format"):
        # With its formats, a data set of Hugging Face applies the order that `shuffle` and `select` gave it.
        return data.with_format("arrow")[:]  # type: ignore[no-any-return]
    if hasattr(data, "__arrow_c_stream__"):
        return data  # type: ignore[no-any-return]
    if hasattr(data, "scanner"):
        # Data sets of pyarrow and Lance.
        return data.scanner().to_reader()  # type: ignore[no-any-return]
    message = (
        f"data is a {type(data).__name__}, which has no `__arrow_c_stream__`; "
        "give a table of pyarrow, polars, duckdb, pandas or HF datasets, or name files with source="
    )
    raise TypeError(message)


def onnxruntime_library() -> Path | None:
    """The shared library in the installed ``onnxruntime`` or ``onnxruntime-gpu``, which is not imported.

    ``None`` where there is none, or where ``ORT_DYLIB_PATH`` names another.
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
