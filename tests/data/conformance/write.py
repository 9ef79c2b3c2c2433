"""Writes `expected.tsv`: what pyarrow reads of Apache's conformance files, for tests/it/conformance.rs to compare with.

A line a file: its path, `rows`, and a digest a column; or its path, `-`, and why pyarrow refuses it. Run it as
`python write.py FOLDER`, the folder with `valid` and `malformed` in it, after these files have changed.
"""

import decimal
import os
import resource
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

decimal.getcontext().prec = 100
MASK = (1 << 64) - 1
NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def texts(array: pa.Array) -> list[bytes]:
    """Every value as a text that does not depend on how its type packs it, as conformance.rs writes it."""
    kind = array.type
    if len(array) == 0:
        return []
    if isinstance(kind, pa.BaseExtensionType):
        return texts(array.storage)
    if pa.types.is_dictionary(kind):
        values = texts(array.dictionary)
        return [b"null" if i is None else values[i] for i in array.indices.to_pylist()]
    if pa.types.is_run_end_encoded(kind):
        values, ends = texts(array.values), array.run_ends.to_pylist()
        out, run = [], 0
        for place in range(array.offset, array.offset + len(array)):
            while ends[run] <= place:
                run += 1
            out.append(values[run])
        return out
    if pa.types.is_union(kind):
        codes = array.type_codes.to_pylist()
        children = [texts(array.field(i)) for i in range(kind.num_fields)]
        child = {kind.type_codes[i]: i for i in range(kind.num_fields)}
        places = array.offsets.to_pylist() if kind.mode == "dense" else range(len(array))
        return [b"u%d:" % code + children[child[code]][place] for code, place in zip(codes, places, strict=True)]
    valid = array.is_valid().to_pylist()
    return [text if there else b"null" for text, there in zip(present(array), valid, strict=True)]


def present(array: pa.Array) -> list[bytes]:
    kind = array.type
    if pa.types.is_null(kind):
        return [b"null"] * len(array)
    if pa.types.is_struct(kind):
        fields = [texts(array.field(i)) for i in range(kind.num_fields)]
        return [b"{" + b",".join(field[row] for field in fields) + b"}" for row in range(len(array))]
    if pa.types.is_map(kind):
        keys, items = texts(array.keys), texts(array.items)
        entries = [b"{" + key + b"," + item + b"}" for key, item in zip(keys, items, strict=True)]
        offsets = array.offsets.to_pylist()
        first = offsets[0] if offsets else 0
        rows = zip(offsets, offsets[1:])
        return [b"[" + b",".join(entries[start - first : end - first]) + b"]" for start, end in rows]
    if pa.types.is_fixed_size_list(kind):
        values, size = texts(array.values), kind.list_size
        starts = [(array.offset + row) * size for row in range(len(array))]
        return [b"[" + b",".join(values[start : start + size]) + b"]" for start in starts]
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        values = texts(array.values)
        rows = zip(array.offsets.to_pylist(), array.sizes.to_pylist(), strict=True)
        return [b"[" + b",".join(values[start : start + size]) + b"]" for start, size in rows]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        values, offsets = texts(array.values), array.offsets.to_pylist()
        rows = zip(offsets, offsets[1:])
        return [b"[" + b",".join(values[start:end]) + b"]" for start, end in rows]
    return [b"" if value is None else scalar(value, kind) for value in plain(array)]


def plain(array: pa.Array) -> list:
    """Values as whole numbers where Python's own types would round them."""
    kind = array.type
    types = pa.types
    if types.is_timestamp(kind) or types.is_duration(kind) or types.is_time64(kind) or types.is_date64(kind):
        return array.view(pa.int64()).to_pylist()
    if pa.types.is_time32(kind) or pa.types.is_date32(kind):
        return array.view(pa.int32()).to_pylist()
    if pa.types.is_interval(kind):
        return [None if v is None else tuple(v) for v in array.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return array.view(pa.binary() if pa.types.is_string(kind) else pa.large_binary()).to_pylist()
    if pa.types.is_string_view(kind):
        return array.view(pa.binary_view()).to_pylist()
    if pa.types.is_float16(kind):
        return [None if v is None else float(v) for v in array.to_pylist()]
    return array.to_pylist()


def scalar(value, kind: pa.DataType) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        return b"nan" if value != value else struct.pack(">d", value).hex().encode()
    if isinstance(value, bytes):
        return b"s%d:" % len(value) + value
    if isinstance(value, tuple):
        return b"i%d,%d,%d" % value
    if pa.types.is_decimal(kind):
        return b"d%de%d" % (int(value.scaleb(kind.scale).to_integral_exact()), kind.scale)
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        return b"t%d" % (value * NANOSECONDS[kind.unit])
    return b"%d" % value


def digest(column: pa.ChunkedArray) -> str:
    """64 bits of FNV-1a over all values, each with a line feed behind it; `?` for types that pyarrow cannot show."""
    state = 0xCBF29CE484222325
    try:
        values = [text for chunk in column.chunks for text in texts(chunk)]
    except KeyError:
        return "?"
    for byte in b"".join(text + b"\n" for text in values):
        state = ((state ^ byte) * 0x100000001B3) & MASK
    return f"{state:016x}"


def read(path: Path) -> pa.Table:
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            table = parquet.ParquetFile(path, coerce_int96_timestamp_unit="us", page_checksum_verification=True).read()
        elif path.suffix == ".arrows" or path.suffix == ".stream" or b"ARROW1" not in path.read_bytes()[:8]:
            table = pa.ipc.open_stream(path.read_bytes()).read_all()
        else:
            table = pa.ipc.open_file(path.read_bytes()).read_all()
    # What valid files say is not doubted: decimals of more digits than declared are among them.
    table.validate(full="malformed" in path.parts)
    return table


def line(path: Path) -> str:
    try:
        table = read(path)
        return "\t".join([str(table.num_rows), *map(digest, table.columns)])
    except (pa.ArrowException, OSError, ValueError, MemoryError, NotImplementedError) as error:
        return f"-\t{' '.join(str(error).split())[:120]}"


def apart(path: Path) -> str:
    """The line of a file, made by a process of its own: what a fuzzer found may end it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
        os.write(writer, line(path).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text or "-\tit ends the process"


def main() -> None:
    folder = Path(sys.argv[1])
    files = sorted(path for part in ("valid", "malformed") for path in (folder / part).rglob("*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()}\t{apart(path)}\n" for path in files]
    Path(__file__).with_name("expected.tsv").write_text(f"# pyarrow {pa.__version__}\n" + "".join(lines))


if __name__ == "__main__":
    main()
