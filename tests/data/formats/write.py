"""Writes the same 60 rows in every format that a source reads, with pyarrow: run here, after a change of the rows."""

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as parquet

N = 60
rows = pa.table(
    {
        "n": pa.array(range(N), pa.int64()),
        "text": [f"text {i}" for i in range(N)],
        "split": pa.array(["train" if i % 3 else "test" for i in range(N)]).dictionary_encode(),
        "score": [None if i % 10 == 9 else i / 4 for i in range(N)],
        "day": pa.array([i * 30 for i in range(N)], pa.date32()),
        "tags": [[f"tag {j}" for j in range(i % 3)] for i in range(N)],
        "size": [{"width": i, "height": 2 * i} for i in range(N)],
        "image": pa.array([bytes([i]) * 4 for i in range(N)], pa.large_binary()),
    }
)
parquet.write_table(rows, "rows.parquet", compression="zstd", row_group_size=25)
parquet.write_table(rows, "pages.parquet", compression="gzip", row_group_size=40, write_page_index=True)
parquet.write_table(
    rows, "checksums.parquet", compression="none", use_dictionary=False, write_statistics=False, row_group_size=40,
    write_page_checksum=True,
)
feather.write_feather(rows, "rows.feather", compression="lz4", chunksize=25)
feather.write_feather(rows, "zstd.feather", compression="zstd", chunksize=60)
with ipc.new_file("rows.arrow", rows.schema) as writer:
    writer.write_table(rows, 7)
with ipc.new_stream("rows.arrows", rows.schema) as writer:
    writer.write_table(rows, 25)
