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
    def __init__(self, kind):
        super().__init__()
        self.encoder = kind()
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


def train(table, folder, steps, *, kind=Encoder, resume=None, save=None, **options):
    """Trains for so many steps, saves then unless told otherwise, and gives the module, which has noted all."""
    export(kind(), folder / "model.onnx")
    pipeline = Pipeline(settings(folder, checkpoint={"dir": folder / "run"}, seed=5), data=table)
    sampler = HardNegativeBatchSampler(pipeline)
    module = Module(kind)
    callback = RefreshCallback(sampler, module.encoder, folder / "model.onnx", every_steps=10)
    by_step = ModelCheckpoint(folder, f"{steps}", every_n_train_steps=steps)
    savers = {None: [by_step], "epoch": [ModelCheckpoint(folder, "epoch", save_on_train_epoch_end=True)], "hand": []}
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=[callback, *savers[save]],
        enable_checkpointing=save != "hand", **{"max_steps": steps, **options},
    )  # fmt: skip
    trainer.fit(module, DataLoader(Rows(table), batch_sampler=sampler), ckpt_path=resume)
    if save == "hand":
        trainer.save_checkpoint(folder / "hand.ckpt")
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


# At an epoch's end Lightning begins an epoch of no steps, if it counts steps alone, and asks for another loader then.
@pytest.mark.parametrize("save", ["hand", "epoch"])
@pytest.mark.parametrize("limits", [{}, {"max_steps": -1, "max_epochs": 1}])
def test_lightning_resumes_exactly_after_an_epoch(table, tmp_path, uninterrupted, save, limits):
    train(table, tmp_path, EPOCH, save=save, **limits)
    limits = {"max_steps": -1, "max_epochs": 3} if limits else {}
    resumed = train(table, tmp_path, 3 * EPOCH, resume=tmp_path / f"{save}.ckpt", save="hand", **limits)
    assert resumed.encoder.seen == uninterrupted[EPOCH:]


def test_lightning_resumes_exactly_from_a_checkpoint_by_hand(table, tmp_path, uninterrupted):
    train(table, tmp_path, 9, save="hand")
    resumed = train(table, tmp_path, 3 * EPOCH, resume=tmp_path / "hand.ckpt", save="hand")
    assert resumed.encoder.seen == uninterrupted[9:]


def test_numbers_are_logged(table, tmp_path):
    logged = train(table, tmp_path, 20).logged
    assert [of_step["prosampler/graph_version"] for of_step in logged[1:]] == [1.0] * 13 + [2.0] * 6
    assert [of_step["prosampler/staleness"] for of_step in logged[1:14]] == list(range(13))
    assert all(0 < of_step["prosampler/similarity"] < 1 for of_step in logged[1:])
