"""Trainings that are resumed from their checkpoints have the mini-batches of one that was never stopped."""

import pytest
from encoders import Encoder, Rows, export, settings
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from prosampler import Pipeline
from prosampler.accelerate import AccelerateBatchSampler
from prosampler.transformers import RefreshCallback

#: 1,000 samples in mini-batches of 32.
EPOCH = 32


@pytest.fixture(autouse=True)
def quick_export(monkeypatch):
    monkeypatch.setattr("prosampler.callbacks.export_model", export)


class WithSampler(Trainer):
    def get_train_dataloader(self):
        self.encoder_file = export(self.model, self.sampler.pipeline_folder / "model.onnx")
        return self.accelerator.prepare(DataLoader(self.train_dataset, batch_sampler=self.sampler))


def train(table, folder, *, resume=None, accumulation=1, every_steps=10, **arguments):
    """Trains in a folder; gives the trainer after that, and the samples of each mini-batch."""
    pipeline = Pipeline(settings(folder, checkpoint={"dir": folder / "run"}, seed=5), data=table)
    sampler = AccelerateBatchSampler(pipeline)
    sampler.pipeline_folder = folder
    model = Encoder()
    callback = RefreshCallback(sampler, model, folder / "model.onnx", every_steps=every_steps)
    args = TrainingArguments(
        str(folder / "out"), learning_rate=0.05, lr_scheduler_type="constant", report_to="none", use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False, gradient_accumulation_steps=accumulation, logging_steps=5,
        **arguments,
    )  # fmt: skip
    trainer = WithSampler(model, args, train_dataset=Rows(table), callbacks=[callback])
    trainer.sampler = sampler
    trainer.train(resume_from_checkpoint=resume)
    sampler.close()
    return trainer, model.seen


@pytest.fixture(scope="module")
def uninterrupted(table, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr("prosampler.callbacks.export_model", export)
    _, seen = train(table, tmp_path_factory.mktemp("whole"), max_steps=3 * EPOCH, save_strategy="no")
    patch.undo()
    return seen


# The refresh of step 10 is used from step 13 on: with its export waiting, just used, and at and after an epoch's end.
@pytest.mark.parametrize("stop", [7, 12, 14, EPOCH, EPOCH + 9])
def test_hugging_face_trainer_resumes_exactly(table, tmp_path, uninterrupted, stop):
    _, before = train(table, tmp_path, max_steps=stop, save_strategy="steps", save_steps=stop)
    assert before == uninterrupted[:stop]
    trainer, after = train(table, tmp_path, resume=True, max_steps=3 * EPOCH, save_strategy="no")
    assert trainer.state.global_step == 3 * EPOCH
    assert after == uninterrupted[stop:]
