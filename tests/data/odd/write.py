"""Writes files that are valid and yet hard to read, with pyarrow: run here, after a change."""

import base64
import struct
from datetime import datetime

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet
import pyarrow.parquet.encryption as encryption

N = 200


def latin() -> pa.StringArray:
    """Texts that pyarrow takes for UTF-8 unchecked. Those of rows 117 and 160 are Latin-1."""
    texts = pa.array([b"caf\xe9 %d" % i if i in (117, 160) else b"caf\xc3\xa9 %d" % i for i in range(N)], pa.binary())
    return pa.StringArray.from_buffers(N, *texts.buffers()[1:], null_bitmap=None)


def write_texts() -> None:
    """The same texts in a column, in lists, and as bytes that only the Arrow schema in the metadata calls texts."""
    texts = latin()
    lists = pa.ListArray.from_arrays(pa.array(range(0, N + 1, 2), pa.int32()), texts)
    table = pa.table({"n": range(N), "text": texts})
    parquet.write_table(table, "latin.parquet", row_group_size=50, compression="none")
    parquet.write_table(table, "latin_plain.parquet", row_group_size=90, compression="none", use_dictionary=False)
    parquet.write_table(pa.table({"n": range(N // 2), "texts": lists}), "latin_lists.parquet", row_group_size=40)
    with ipc.new_stream("latin.arrows", table.schema) as writer:
        writer.write_table(table, 60)
    with ipc.new_file("latin.arrow", table.schema) as writer:
        writer.write_table(table, 60)
    schema = base64.b64encode(table.schema.serialize().to_pybytes())
    as_bytes = pa.table({"n": table["n"], "text": table["text"].combine_chunks().view(pa.binary())})
    with parquet.ParquetWriter("latin_hinted.parquet", as_bytes.schema, store_schema=False) as writer:
        writer.write_table(as_bytes, row_group_size=50)
        writer.add_key_value_metadata({"ARROW:schema": schema})


def write_times() -> None:
    """Timestamps as INT96, within what nanoseconds reach and beyond, and before 1970."""
    times = [datetime(1, 1, 1), datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2024, 2, 29, 12, 0, 0, 123456)]
    times = pa.array([*times, None, datetime(9999, 12, 31, 23, 59, 59, 999999)], pa.timestamp("us"))
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 1, 3, 4, 5], pa.int32()), times)
    table = pa.table({"time": times, "times": lists})
    for name, stored in [("int96.parquet", False), ("int96_hinted.parquet", True)]:
        parquet.write_table(table, name, use_deprecated_int96_timestamps=True, store_schema=stored)


def write_big_endian() -> None:
    """Writes a stream and a file that claim to be big-endian: the flag is no value of its own in pyarrow's files."""
    table = pa.table({"n": pa.array([1, 2, 3], pa.int32())})
    with ipc.new_stream(sink := pa.BufferOutputStream(), table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue().to_pybytes()
    end = 8 + int.from_bytes(stream[4:8], "little")
    for place in range(8, end, 2):
        for offset in range(4, 64, 2):
            patched = stream[:place] + struct.pack("<H", offset) + stream[place + 2 :]
            try:
                values = ipc.open_stream(patched).read_all()["n"].to_pylist()
            except (pa.ArrowException, OSError):
                continue
            if values == [1 << 24, 2 << 24, 3 << 24]:
                with open("big_endian.arrows", "wb") as file:
                    file.write(patched)
                with open("big_endian.arrow", "wb") as file:
                    file.write(b"ARROW1\0\0" + patched + b"\0\0\0\0ARROW1")
                return
    raise RuntimeError("found no place for the flag")


class Kms(encryption.KmsClient):
    """Keys that are their own wrapping."""

    def __init__(self, _) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, _) -> bytes:
        return base64.b64decode(key)


def write_encrypted() -> None:
    table = pa.table({"n": range(N), "text": [f"text {i}" for i in range(N)]})
    factory, connection = encryption.CryptoFactory(Kms), encryption.KmsConnectionConfig()
    for name, plain in [("encrypted.parquet", False), ("encrypted_column.parquet", True)]:
        config = encryption.EncryptionConfiguration("key", column_keys={"other": ["text"]}, plaintext_footer=plain)
        properties = factory.file_encryption_properties(connection, config)
        with parquet.ParquetWriter(name, table.schema, encryption_properties=properties) as writer:
            writer.write_table(table)


def write_panic() -> None:
    """Writes a file whose second row group has an empty dictionary for 200 values; a decoder divides by its size."""
    table = pa.table({"n": pa.array(range(600), pa.int32()), "text": [f"text {i % 37}" for i in range(600)]})
    options = {"compression": "none", "write_statistics": False, "data_page_version": "2.0"}
    parquet.write_table(table, "panic.parquet", row_group_size=200, **options)
    place = parquet.read_metadata("panic.parquet").row_group(1).column(1).dictionary_page_offset + 10
    with open("panic.parquet", "r+b") as file:
        file.seek(place)
        assert file.read(1) == b"J", "37, as Thrift writes it"
        file.seek(place)
        file.write(b"\0")


if __name__ == "__main__":
    write_panic()
    write_texts()
    write_times()
    write_big_endian()
    write_encrypted()
