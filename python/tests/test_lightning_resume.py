"""Lightning goes on exactly from its checkpoints."""

import lightning
import pytest
import torch
from encoders import Encoder, Rows, export, settings
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from prosampler import Pipeline
from prosampler.lightning import RefreshCallback
from prosampler.torch import HardNegativeBatchSampler

#: 1,000 samples in mini-batches of 32.
EPOCH = 32


@pytest.fixture(autouse=True)
def quick_export(monkeypatch):
    monkeypatch.setattr("prosampler.callbacks.export_model", export)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.logged = []

    def on_train_batch_start(self, batch, batch_idx):
        # Lightning does not restore random numbers.
        torch.manual_seed(self.trainer.global_step)

    def training_step(self, batch, _):
        return self.encoder(**batch)["loss"]

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.05)

    def on_before_zero_grad(self, *_):
        self.logged.append(dict(self.trainer.logged_metrics))


def train(table, folder, steps, *, resume=None):
    """Trains for so many steps, saves, and gives the samples of each mini-batch and what was logged."""
    export(Encoder(), folder / "model.onnx")
    pipeline = Pipeline(settings(folder, checkpoint={"dir": folder / "run"}, seed=5), data=table)
    sampler = HardNegativeBatchSampler(pipeline)
    module = Module()
    callback = RefreshCallback(sampler, module.encoder, folder / "model.onnx", every_steps=10)
    save = ModelCheckpoint(folder, f"{steps}", every_n_train_steps=steps)
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[callback, save],
    )  # fmt: skip
    trainer.fit(module, DataLoader(Rows(table), batch_sampler=sampler), ckpt_path=resume)
    sampler.close()
    return module


@pytest.fixture(scope="module")
def uninterrupted(table, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prosampler.callbacks.export_model", export)
        folder = tmp_path_factory.mktemp("whole")
        return train(table, folder, 3 * EPOCH).encoder.seen


# The refresh of step 10 is used from step 13 on: with its export waiting, just used, and at and after an epoch's end.
@pytest.mark.parametrize("stop", [9, 12, 14, EPOCH, EPOCH + 9])
def test_lightning_resumes_exactly(table, tmp_path, uninterrupted, stop):
    assert train(table, tmp_path, stop).encoder.seen == uninterrupted[:stop]
    resumed = train(table, tmp_path, 3 * EPOCH, resume=tmp_path / f"{stop}.ckpt")
    assert resumed.encoder.seen == uninterrupted[stop:]


def test_numbers_are_logged(table, tmp_path):
    logged = train(table, tmp_path, 20).logged
    assert [of_step["prosampler/graph_version"] for of_step in logged[1:]] == [1.0] * 13 + [2.0] * 6
    assert [of_step["prosampler/staleness"] for of_step in logged[1:14]] == list(range(13))
    assert all(0 < of_step["prosampler/similarity"] < 1 for of_step in logged[1:])
