"""sentence-transformers in two processes that share mini-batches, and one that goes on from their checkpoint."""

import json
from itertools import chain

import pytest
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
    models,
)
from test_accelerate import spawn

from prosampler.sentence_transformers import HardNegatives

#: 128 pairs in mini-batches of 16.
ROWS, TOGETHER, EPOCH = 128, 16, 8


def train(folder, tiny_folder, rows, *, world_size, steps, split_batches=False, resume=None):
    """Trains on all rows but the last 32; gives the anchors of each of this process's slices, and the weights."""
    transformer = models.Transformer(str(tiny_folder), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, models.Pooling(32)], device="cpu")
    pairs = Dataset.from_dict(rows)
    train_dataset, eval_dataset = pairs.select(range(ROWS)), pairs.select(range(ROWS, ROWS + 32))
    hard = HardNegatives(
        model, f"{folder}/encoder/model.onnx", every_steps=6, graph={"candidates": 100, "neighbors": 10}
    )
    # The batch size of the arguments is that of a process, or with `split_batches` that of all.
    batch_size = TOGETHER if split_batches else TOGETHER // world_size
    args = SentenceTransformerTrainingArguments(
        f"{folder}/out", per_device_train_batch_size=batch_size, max_steps=steps, learning_rate=1e-3,
        batch_sampler=hard, report_to="none", disable_tqdm=True, use_cpu=True, save_steps=5, eval_steps=4,
        dataloader_drop_last=True, eval_strategy="steps", per_device_eval_batch_size=8, logging_steps=4,
        accelerator_config={"split_batches": split_batches},
    )  # fmt: skip
    loss = losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=4, gather_across_devices=True)
    trainer = SentenceTransformerTrainer(model, args, train_dataset=train_dataset, eval_dataset=eval_dataset, loss=loss)
    hard.attach(trainer)
    seen, trained_on, kind = [], {*rows["anchor"][:ROWS]}, type(trainer.data_collator)

    class Noting(kind):
        def __call__(self, features):
            if features[0]["anchor"] in trained_on:
                seen.append([row["anchor"] for row in features])
            return super().__call__(features)

    trainer.data_collator.__class__ = Noting
    trainer.train(resume_from_checkpoint=resume)
    hard.close()
    # The loader reads one mini-batch ahead.
    begun = 5 if resume else 0
    assert len(seen) - (steps - begun) in (0, 1)
    return seen[: steps - begun], [weights.sum().item() for weights in model.parameters()], trainer.state


def train_rank(rank, world_size, folder, tiny_folder, rows, split_batches):
    seen, weights, _ = train(folder, tiny_folder, rows, world_size=world_size, steps=12, split_batches=split_batches)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump({"seen": seen, "weights": weights}, file)


@pytest.mark.parametrize("split_batches", [False, True])
def test_two_processes_and_one_that_goes_on(glosses, tiny_folder, tmp_path, split_batches):
    pairs = {pair["definition"]: pair["words"] for pair in glosses.to_pylist()}
    rows = {"anchor": [*pairs][: ROWS + 32], "positive": [*pairs.values()][: ROWS + 32]}
    spawn(train_rank, 2, str(tmp_path), str(tiny_folder), rows, split_batches)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["weights"] == two["weights"]
    joined = [a + b for a, b in zip(one["seen"], two["seen"], strict=True)]
    # Each sample comes once an epoch, in the slices of both.
    assert all(len(mini_batch) == TOGETHER for mini_batch in joined)
    assert sorted(chain(*joined[:EPOCH])) == sorted(rows["anchor"][:ROWS])
    # The refresh of step 6 waited when step 5 was saved, and its graph is used from step 7 on.
    checkpoint = tmp_path / "out/checkpoint-5"
    assert (checkpoint / "prosampler_model.onnx").exists()
    seen, _, state = train(tmp_path, tiny_folder, rows, world_size=1, steps=12, resume=str(checkpoint))
    assert seen == joined[5:]
    logged = [log for log in state.log_history if "prosampler/similarity" in log]
    assert [(log["step"], log["prosampler/graph_version"]) for log in logged] == [(4, 1), (8, 2), (12, 2)]
