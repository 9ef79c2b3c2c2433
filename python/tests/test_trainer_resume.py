"""Trainings that are resumed from their checkpoints have the mini-batches of one that was never stopped."""

import pytest
from conftest import SMALL
from encoders import Encoder, Rows, export, settings
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from prosampler import Pipeline, StateError
from prosampler.accelerate import AccelerateBatchSampler
from prosampler.callbacks import EncoderRefresh
from prosampler.torch import HardNegativeBatchSampler
from prosampler.transformers import RefreshCallback

#: 1,000 samples in mini-batches of 32.
EPOCH = 32


@pytest.fixture(autouse=True)
def quick_export(monkeypatch):
    monkeypatch.setattr("prosampler.callbacks.export_model", export)


class WithSampler(Trainer):
    def get_train_dataloader(self):
        export(self.model, self.folder / "model.onnx")
        return self.accelerator.prepare(DataLoader(self.train_dataset, batch_sampler=self.sampler))


def train(table, folder, *, kind=Encoder, resume=None, accumulation=1, every_steps=10, reporters=(), walk=None, **more):
    """Trains in a folder; gives the trainer after that, and the samples of each mini-batch."""
    run = {"checkpoint": {"dir": folder / "run"}, "walk": {**SMALL["walk"], **(walk or {})}, "seed": 5}
    pipeline = Pipeline(settings(folder, **run), data=table)
    split_batches = more.get("accelerator_config", {}).get("split_batches", False)
    sampler = AccelerateBatchSampler(pipeline, split_batches=split_batches)
    model = kind()
    callback = RefreshCallback(sampler, model, folder / "model.onnx", every_steps=every_steps)
    args = TrainingArguments(
        str(folder / "out"), learning_rate=0.05, lr_scheduler_type="constant", report_to="none", use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False, gradient_accumulation_steps=accumulation, logging_steps=5,
        **more,
    )  # fmt: skip
    trainer = WithSampler(model, args, train_dataset=Rows(table), callbacks=[*reporters])
    callback.attach(trainer)
    trainer.sampler, trainer.folder = sampler, folder
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


def test_with_accumulation_and_workers(table, tmp_path):
    """An epoch has 11 steps of three mini-batches, of which the last has two; workers read four ahead."""
    settings = {"accumulation": 3, "every_steps": 5, "dataloader_num_workers": 2}
    _, whole = train(table, tmp_path / "whole", max_steps=24, save_strategy="no", **settings)
    _, before = train(table, tmp_path / "halves", max_steps=16, save_strategy="steps", save_steps=16, **settings)
    _, after = train(table, tmp_path / "halves", resume=True, max_steps=24, save_strategy="no", **settings)
    assert len(before) == EPOCH + 5 * 3
    assert before + after == whole


def test_a_checkpoint_that_is_older_or_lies_elsewhere(table, tmp_path):
    train(table, tmp_path, max_steps=20, save_strategy="steps", save_steps=10)
    # The folder holds both states, and goes on from the older one.
    older = tmp_path / "out/checkpoint-10"
    (tmp_path / "out/checkpoint-20").rename(tmp_path / "elsewhere")
    trainer, seen = train(table, tmp_path, resume=str(older), max_steps=15, save_strategy="no")
    assert (trainer.state.global_step, len(seen)) == (15, 5)
    with pytest.raises(StateError, match="name its folder in"):
        train(table, tmp_path, resume=str(tmp_path / "elsewhere"), max_steps=25, save_strategy="no")
    (older / "prosampler_state.json").unlink()
    with pytest.raises(StateError, match="Resume from an older checkpoint"):
        train(table, tmp_path, resume=str(older), max_steps=15, save_strategy="no")


def test_a_new_training_is_refused_the_folder_of_another(table, tmp_path):
    train(table, tmp_path, max_steps=10, save_strategy="steps", save_steps=5)
    with pytest.raises(StateError, match="holds a run that was saved at step 10"):
        train(table, tmp_path, max_steps=5, save_strategy="no")
    with pytest.raises(StateError, match=r"saved at step 10.* made with walk.batch_size = 32, and now it is 16"):
        train(table, tmp_path, resume=True, max_steps=15, save_strategy="no", walk={"batch_size": 16})


class Reporter(TrainerCallback):
    """Gets what Weights & Biases, MLflow, trackio and TensorBoard get."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **_):
        self.logs.append(dict(logs))


def test_numbers_join_the_log(table, tmp_path):
    reporter = Reporter()
    trainer, seen = train(table, tmp_path, max_steps=20, save_strategy="no", reporters=[reporter])
    # The same by an encoder with the weights of the start.
    export(Encoder(), tmp_path / "model.onnx")
    with Pipeline(settings(tmp_path, seed=5), data=table).start() as stream:
        expected = [next(stream) for _ in range(5)]
    assert seen[:5] == [mini_batch.ids for mini_batch in expected]
    names = ("similarity", "staleness", "graph_version", "model_version", "refused", "short")
    names += ("trainer_wait", "refreshes_failed")
    for logs in (reporter.logs, trainer.state.log_history):
        assert {f"prosampler/{name}" for name in names} <= logs[0].keys()
        assert [of_step["prosampler/graph_version"] for of_step in logs[:4]] == [1, 1, 2, 2]
        assert logs[0]["prosampler/staleness"] == 2
        assert logs[0]["prosampler/trainer_wait"] >= 0
        mean = sum(mini_batch.similarity for mini_batch in expected) / 5
        assert logs[0]["prosampler/similarity"] == pytest.approx(mean)


def test_a_callback_that_could_not_keep_its_promise_is_refused(table, tmp_path, monkeypatch):
    def callback(**options):
        run = HardNegativeBatchSampler(Pipeline(settings(tmp_path), data=table))
        return EncoderRefresh(run, Encoder(), tmp_path / "model.onnx", **options)

    # The export before would be replaced while it is read.
    with pytest.raises(
        ValueError, match=r"every_steps is 2, 6 mini-batches, of which the loader reads 4 ahead; .* to 3"
    ):
        callback(every_steps=2).begin(accumulation=3)
    export(Encoder(), tmp_path / "model.onnx")
    late = callback(every_steps=10)
    assert len(late.run) == EPOCH
    with pytest.raises(StateError, match="the stream has started"):
        late.begin()
    late.run.close()
    monkeypatch.setattr("prosampler.callbacks._world_size", lambda: 2)
    with pytest.raises(ValueError, match="leave wait=True"):
        callback(every_steps=10, wait=False).begin()
