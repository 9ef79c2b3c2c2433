"""Tables in, record batches and tensors out, and nothing is copied on the way out."""

import datasets
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import torch
from conftest import VECTORS

from prosampler import Pipeline, SourceError


def first(data, **settings):
    with Pipeline(VECTORS, data=data, **settings).start() as stream:
        return next(stream)


def rows_of(table, mini_batch, column="text"):
    return [table[column][i].as_py() for i in mini_batch.ids]


def lance_of(table, folder):
    lance = pytest.importorskip("lance")
    return lance.write_dataset(table, str(folder / "table.lance"))


@pytest.mark.parametrize(
    "convert",
    {
        "pyarrow table": lambda t, _: t,
        "pyarrow reader": lambda t, _: t.to_reader(max_chunksize=100),
        "pyarrow record batch": lambda t, _: t.combine_chunks().to_batches()[0],
        "pyarrow data set": lambda t, _: pyarrow.dataset.dataset(t),
        "pyarrow scanner": lambda t, _: pyarrow.dataset.dataset(t).scanner(),
        "pandas": lambda t, _: t.to_pandas(),
        "polars": lambda t, _: pl.from_arrow(t),
        "duckdb": lambda t, _: duckdb.connect().from_arrow(t),
        "duckdb query": lambda t, _: duckdb.sql("select id, label, text, vector from t order by id"),
        "datasets": lambda t, _: datasets.Dataset(t),
        "datasets, of rows": lambda t, _: datasets.Dataset.from_list(t.to_pylist()),
        "datasets, streamed": lambda t, _: datasets.Dataset(t).to_iterable_dataset(num_shards=3),
        "Lance": lambda t, folder: lance_of(t, folder),
        "Lance scanner": lambda t, folder: lance_of(t, folder).scanner(),
    }.items(),
    ids=lambda item: item[0],
)
def test_any_table_is_a_source(table, convert, tmp_path):
    _, convert = convert
    # Where lists have no fixed size, as in pandas, their size is a setting.
    mini_batch = first(convert(table, tmp_path), encode={"dimension": 16})
    assert pa.record_batch(mini_batch)["text"].to_pylist() == rows_of(table, mini_batch)
    assert mini_batch["text"].to_list() == rows_of(table, mini_batch)


def test_a_shuffled_data_set_has_its_own_order(table):
    shuffled = datasets.Dataset(table).shuffle(seed=1).select(range(500))
    mini_batch = first(shuffled)
    assert mini_batch["text"].to_list() == [shuffled[i]["text"] for i in mini_batch.ids]


def test_a_table_can_be_read_again_but_a_reader_cannot(table):
    pipeline = Pipeline(VECTORS, data=table, seed=5)
    assert [m.ids for m in pipeline] == [m.ids for m in pipeline]
    pipeline = Pipeline(VECTORS, data=table.to_reader())
    assert len(list(pipeline)) == 32
    with pytest.raises(SourceError, match="a reader can be read once only"):
        pipeline.start()


def test_what_is_no_table_is_refused_with_the_remedy(table):
    with pytest.raises(TypeError, match=r"LazyFrame.* give data\.collect\(\)"):
        Pipeline(VECTORS, data=pl.from_arrow(table).lazy())
    with pytest.raises(TypeError, match=r"DatasetDict of splits; give one of them, data\['train'\]"):
        Pipeline(VECTORS, data=datasets.DatasetDict(train=datasets.Dataset(table)))
    with pytest.raises(TypeError, match="Series, whose rows have no columns"):
        Pipeline(VECTORS, data=pl.Series([1, 2])).start()


def test_what_leaves_shares_memory(table):
    mini_batch = first(table)
    batch, again = pa.record_batch(mini_batch), pa.record_batch(mini_batch)
    tensors = mini_batch.to_torch()
    for name in ("id", "label"):
        address = batch[name].buffers()[1].address
        assert address == again[name].buffers()[1].address
        assert address == tensors[name].data_ptr()
        assert address == np.from_dlpack(mini_batch[name]).ctypes.data
        assert address == pa.array(mini_batch[name]).buffers()[1].address
    assert batch["text"].buffers()[2].address == again["text"].buffers()[2].address
    assert batch["vector"].flatten().buffers()[1].address == tensors["vector"].data_ptr()
    assert pl.DataFrame(mini_batch)["id"].to_list() == mini_batch.ids


def test_tensors_outlive_the_mini_batch(table):
    mini_batch = first(table)
    expected = pa.record_batch(mini_batch)["id"].to_pylist()
    tensor = mini_batch.to_torch(["id"])["id"]
    del mini_batch
    assert tensor.tolist() == expected


def test_columns_become_tensors_of_their_type(table):
    n = len(table)
    numbers = {
        "i8": pa.int8(), "i16": pa.int16(), "i32": pa.int32(), "i64": pa.int64(), "u8": pa.uint8(),
        "f32": pa.float32(), "f64": pa.float64(),
    }  # fmt: skip
    data = table
    for name, kind in numbers.items():
        data = data.append_column(name, pa.array([i % 100 for i in range(n)]).cast(kind))
    data = data.append_column("f16", pa.array(np.arange(n) % 100, pa.int32()).cast(pa.float32()).cast(pa.float16()))
    data = data.append_column("bool", pa.array([i % 3 == 0 for i in range(n)]))
    data = data.append_column("pair", pa.array([[i, -i] for i in range(n)], pa.list_(pa.int64())))
    data = data.append_column(
        "square", pa.array([[[i, 1], [2, 3]] for i in range(n)], pa.list_(pa.list_(pa.int32(), 2), 2))
    )
    data = data.append_column("bytes", pa.array([bytes([i % 256]) for i in range(n)]))
    data = data.append_column("kind", pa.array([f"kind {i % 3}" for i in range(n)]).dictionary_encode())
    mini_batch = first(data)
    ids = torch.tensor(mini_batch.ids)
    found = mini_batch.to_torch()
    types = {"i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "u8": torch.uint8}
    types |= {"f16": torch.float16, "f32": torch.float32, "f64": torch.float64}
    for name, kind in types.items():
        assert found[name].dtype == kind
        assert found[name].tolist() == (ids % 100).tolist()
    assert found["bool"].dtype == torch.bool
    assert found["bool"].tolist() == (ids % 3 == 0).tolist()
    assert torch.equal(found["pair"], torch.stack([ids, -ids], 1))
    assert found["square"].shape == (32, 2, 2)
    assert torch.equal(found["square"][:, 0, 0], ids.int())
    assert found["vector"].shape == (32, 16)
    assert found["bytes"] == [bytes([i % 256]) for i in mini_batch.ids]
    assert found["kind"] == [f"kind {i % 3}" for i in mini_batch.ids]


def test_what_makes_no_tensor_says_so(table):
    n = len(table)
    data = table.append_column("holes", pa.array([None if i % 2 else i for i in range(n)]))
    data = data.append_column("ragged", pa.array([[0] * (i % 5) for i in range(n)]))
    data = data.append_column("struct", pa.array([{"a": i} for i in range(n)]))
    mini_batch = first(data)
    for name, part in (("holes", "nulls"), ("ragged", "unequal lengths"), ("struct", "Struct")):
        with pytest.raises(TypeError, match=rf"column `{name}`.*{part}"):
            mini_batch.to_torch([name])
    with pytest.raises(KeyError, match="column `nothing` not found"):
        mini_batch["nothing"]
    assert set(mini_batch.to_torch(["id", "text"])) == {"id", "text"}
