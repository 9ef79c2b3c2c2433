"""Writes the files that the soak damages, with pyarrow: 120 rows, and pages with checksums; run here."""

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet

N = 120
rows = pa.table(
    {
        "n": pa.array(range(N), pa.int64()),
        "text": [None if i % 7 == 3 else f"text {i % 9}" for i in range(N)],
        "split": pa.array(["train" if i % 3 else "test" for i in range(N)]).dictionary_encode(),
        "score": [None if i % 10 == 9 else i / 4 for i in range(N)],
        "tags": [None if i % 5 == 4 else [f"tag {j}" for j in range(i % 3)] for i in range(N)],
        "size": [{"width": i, "height": [2 * i]} for i in range(N)],
    }
)
for name, options in {
    "plain": {"compression": "none", "use_dictionary": False},
    "dictionary": {"compression": "none"},
    "newer": {"compression": "zstd", "data_page_version": "2.0"},
    "snappy": {"compression": "snappy", "data_page_size": 200},
    "lz4": {"compression": "lz4", "write_page_index": True},
}.items():
    parquet.write_table(rows, f"{name}.parquet", row_group_size=50, write_page_checksum=True, **options)
with ipc.new_file("rows.arrow", rows.schema) as writer:
    writer.write_table(rows, 50)
with ipc.new_stream("rows.arrows", rows.schema, options=ipc.IpcWriteOptions(compression="lz4")) as writer:
    writer.write_table(rows, 50)
