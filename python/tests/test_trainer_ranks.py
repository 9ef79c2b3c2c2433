"""Trainings go on exactly from their checkpoints with as many processes as before, and with more or fewer."""

import json
from itertools import chain

import pytest
import test_lightning_resume
import test_trainer_resume
from conftest import vectors
from encoders import Steady, export
from test_accelerate import spawn

#: 1,000 samples in mini-batches of 32.
EPOCH = 32

#: In the middle of an epoch, with the export of step 10 waiting for its graph, and at an epoch's end.
STOPS = (12, EPOCH)

TOTAL = 2 * EPOCH + 6


@pytest.fixture(autouse=True)
def quick_export(monkeypatch):
    monkeypatch.setattr("prosampler.callbacks.export_model", export)


def hugging_face(folder, steps, world_size, *, resumes=False, **more):
    """Trains up to a step, and saves there; gives the samples of this process's slices."""
    saving = {"save_strategy": "steps", "save_steps": steps, "max_steps": steps}
    _, seen = test_trainer_resume.train(vectors(1000), folder, kind=Steady, resume=resumes, **saving, **more)
    return seen


def hugging_face_split(folder, steps, world_size, *, resumes=False):
    """The same, where Accelerate splits mini-batches."""
    return hugging_face(folder, steps, world_size, resumes=resumes, accelerator_config={"split_batches": True})


def lightning(folder, steps, world_size, *, resumes=False):
    """The same."""
    resume = next(folder.glob("*.ckpt")) if resumes else None
    ranks = {"devices": world_size, "strategy": "ddp", "use_distributed_sampler": False} if world_size > 1 else {}
    module = test_lightning_resume.train(vectors(1000), folder, steps, kind=Steady, resume=resume, **ranks)
    return module.encoder.seen


def train(rank, world_size, trainer, runs):
    """Trains in one folder after another, up to a step, and notes what this process has seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prosampler.callbacks.export_model", export)
        for folder, steps, resumes in runs:
            folder.mkdir(exist_ok=True)
            seen = trainer(folder, steps, world_size, resumes=resumes)
            (folder / f"seen {rank} {resumes}.json").write_text(json.dumps(seen))


def joined(folder, world_size, resumes):
    """The mini-batches of a training, over all its processes."""
    ranks = [json.loads((folder / f"seen {rank} {resumes}.json").read_text()) for rank in range(world_size)]
    return [[*chain(*slices)] for slices in zip(*ranks, strict=True)]


@pytest.mark.parametrize("trainer", [hugging_face, hugging_face_split, lightning])
def test_trainings_go_on_with_as_many_processes_and_with_others(tmp_path, trainer):
    whole = tmp_path / "whole"
    ways = [(before, after, stop) for stop in STOPS for before, after in [(2, 2), (2, 1), (1, 2)]]
    folders = {way: tmp_path / "{} then {} at {}".format(*way) for way in ways}
    begin = {w: [(folders[way], way[2], False) for way in ways if way[0] == w] for w in (1, 2)}
    go_on = {w: [(folders[way], TOTAL, True) for way in ways if way[1] == w] for w in (1, 2)}
    train(0, 1, trainer, [(whole, TOTAL, False), *begin[1]])
    spawn(train, 2, trainer, begin[2] + go_on[2])
    train(0, 1, trainer, go_on[1])
    expected = joined(whole, 1, False)
    assert len(expected) == TOTAL
    for before, after, stop in ways:
        folder = folders[before, after, stop]
        assert joined(folder, before, False) == expected[:stop], folder
        assert joined(folder, after, True) == expected[stop:], folder
