"""Several tables in one run, and several data sets in a trainer."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import VECTORS, vectors
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses

from prosampler import ConfigError, Pipeline
from prosampler.sentence_transformers import HardNegatives


@pytest.fixture(scope="module")
def tables():
    return {"few": vectors(100, seed=1), "many": vectors(400, seed=2)}


def test_tables_by_name_are_one_run(tables):
    with Pipeline(VECTORS, data=tables).start() as stream:
        assert stream.samples == 500
        mini_batches = list(stream)
    assert sorted(i for m in mini_batches for i in m.ids) == list(range(500))
    for mini_batch in mini_batches:
        names = ["few" if i < 100 else "many" for i in mini_batch.ids]
        rows = pa.record_batch(mini_batch)
        assert rows["source"].to_pylist() == names
        assert mini_batch.sources == Counter(names)
        expected = [
            tables[name]["text"][i if i < 100 else i - 100].as_py()
            for name, i in zip(names, mini_batch.ids, strict=True)
        ]
        assert rows["text"].to_pylist() == expected


def test_weights_of_tables_and_of_files(tables, tmp_path):
    sources = [{"name": "few", "weight": 1}, {"name": "many", "weight": 3}]
    with Pipeline(VECTORS, data=tables, sources=sources).start() as stream:
        assert stream.mini_batches_per_epoch == 12
        assert [m.sources for m in stream] == [{"few": 8, "many": 24}] * 12
        state = stream.state()
        assert state["step"] == 12
    paths = {name: tmp_path / f"{name}.parquet" for name in tables}
    for name, path in paths.items():
        pq.write_table(tables[name], path)
    files = [{**source, "uri": paths[source["name"]]} for source in sources]
    with Pipeline(VECTORS, sources=files).start() as stream:
        assert [m.sources for m in stream] == [{"few": 8, "many": 24}] * 12

    # What a file says about sources holds for tables of these names.
    (tmp_path / "pipeline.toml").write_text(
        """
        encode = { feature = "vector", column = "vector" }
        graph = { candidates = 200, neighbors = 10 }
        walk = { batch_size = 32, same = "source" }
        [[sources]]
        name = "few"
        weight = 1
        [[sources]]
        name = "many"
        weight = 1
        """
    )
    pipeline = Pipeline(tmp_path / "pipeline.toml", data=tables)
    with pipeline.start() as stream:
        assert [sum(m.sources.values()) for m in stream] == [32] * stream.mini_batches_per_epoch
    heavier = pipeline.with_settings(sources=[{"name": "few", "weight": 1}, {"name": "many", "weight": 7}])
    with heavier.start() as stream:
        assert next(iter(stream)).sources == {"many": 32}


def test_what_is_wrong_with_named_tables(tables):
    with pytest.raises(ConfigError, match="name `other`, of which no rows are given"):
        Pipeline(VECTORS, data=tables, sources=[{"name": "other"}]).start()
    with pytest.raises(TypeError, match="sources are no dicts"):
        Pipeline(VECTORS, data=tables, sources="few")
    with pytest.raises(TypeError, match="name each table by a text"):
        Pipeline(VECTORS, data={1: tables["few"]})
    with pytest.raises(TypeError, match="has no tables"):
        Pipeline(VECTORS, data={})
    with pytest.raises(ConfigError, match=r"sources\[1\].weight"):
        Pipeline(VECTORS, data=tables, sources=[{"name": "few", "weight": 1}])


def test_a_dataset_dict_is_trained_by_data_set(tiny, pairs, tmp_path):
    anchors, positives = pairs["anchor"], pairs["positive"]
    first = Dataset.from_dict({"anchor": anchors[:200], "positive": positives[:200]})
    second = Dataset.from_dict({"question": anchors[200:500], "answer": positives[200:500]})
    data = DatasetDict(first=first, second=second)
    hard = HardNegatives(
        tiny,
        tmp_path / "encoder/model.onnx",
        every_steps=10,
        graph={"candidates": 100, "neighbors": 10},
        sources=[{"name": "first", "weight": 1}, {"name": "second", "weight": 2}],
        mixture={"stop": "all"},
    )
    args = SentenceTransformerTrainingArguments(
        str(tmp_path / "out"),
        per_device_train_batch_size=16,
        max_steps=24,
        multi_dataset_batch_sampler=hard.mixed,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    taken = []

    class Loss(losses.MultipleNegativesRankingLoss):
        def forward(self, features, labels):
            taken.append([f["input_ids"].shape[0] for f in features])
            return super().forward(features, labels)

    trainer = SentenceTransformerTrainer(tiny, args, train_dataset=data, loss=Loss(tiny))
    hard.attach(trainer)
    trainer.train()
    assert taken == [[16, 16]] * 24
    assert torch.isfinite(trainer.model.encode(["a"], convert_to_tensor=True)).all()
    names = [m.sources for m, _ in zip(hard.epochs.stream, range(6), strict=False)]
    assert all(len(sources) == 1 for sources in names)
    assert sum("second" in sources for sources in names) == 4
    hard.close()
