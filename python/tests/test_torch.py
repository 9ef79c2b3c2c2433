"""Hard negatives through PyTorch's loaders."""

import json
import os

import pytest
import torch
from conftest import SMALL, VECTORS, vectors
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchdata.stateful_dataloader import StatefulDataLoader

import prosampler
from prosampler import Pipeline
from prosampler.agreement import Drawn, difference
from prosampler.torch import HardNegativeBatchSampler, HardNegativeDataset


class Rows(Dataset):
    """The map-style data set whose order is the source's."""

    def __init__(self, table):
        self.vectors = torch.tensor(table["vector"].to_pylist())

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, index):
        return index, self.vectors[index]


def pipeline(table, **settings):
    return Pipeline(VECTORS, data=table, source={"columns": ["id", "vector"]}, **settings)


def loss_of(encoder, vectors):
    """InfoNCE of two noisy views."""
    noise = torch.Generator().manual_seed(0)
    views = [encoder(vectors + 0.1 * torch.randn(vectors.shape, generator=noise)) for _ in range(2)]
    one, two = (torch.nn.functional.normalize(view, dim=-1) for view in views)
    return torch.nn.functional.cross_entropy(one @ two.T / 0.1, torch.arange(len(vectors)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_with_the_batch_sampler(table, workers):
    torch.manual_seed(0)
    sampler = HardNegativeBatchSampler(pipeline(table))
    loader = DataLoader(Rows(table), batch_sampler=sampler, num_workers=workers)
    assert len(loader) == 32
    encoder = torch.nn.Linear(16, 8)
    optimizer = torch.optim.Adam(encoder.parameters(), 0.01)
    losses, epochs = [], []
    for _ in range(3):
        seen = []
        for ids, rows in loader:
            loss = loss_of(encoder, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            seen.append(ids.tolist())
        assert sorted(i for ids in seen for i in ids) == list(range(1000))
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]
    assert sum(losses[-32:]) < 0.8 * sum(losses[:32])
    sampler.close()


def test_whole_mini_batches(table):
    dataset = HardNegativeDataset(pipeline(table))
    loader = DataLoader(dataset, batch_size=None)
    assert len(loader) == 32
    for _ in range(2):
        ids = []
        for columns in loader:
            assert columns["vector"].shape[1] == 16
            ids += columns["id"].tolist()
        assert sorted(ids) == list(range(1000))
    dataset.close()
    sizes = HardNegativeDataset(VECTORS, data=table, transform=len)
    assert list(sizes) == [32] * 31 + [8]
    sizes.close()


def test_workers_that_would_all_yield_the_same_are_refused(table):
    loader = DataLoader(HardNegativeDataset(pipeline(table)), batch_size=None, num_workers=2)
    with pytest.raises(prosampler.ForkError, match="num_workers=0"):
        next(iter(loader))


def test_epochs_go_forward(table):
    with pipeline(table, stream={"epochs": 6}).start() as stream:
        expected = {}
        for mini_batch in stream:
            expected.setdefault(mini_batch.epoch, []).append(mini_batch.ids)
    sampler = HardNegativeBatchSampler(pipeline(table))
    assert list(sampler) == expected[0]
    # One that is left in the middle is over.
    iterator = iter(sampler)
    assert next(iterator) == expected[1][0]
    assert list(sampler) == expected[2]
    with pytest.raises(prosampler.ClosedError, match="another one has begun"):
        next(iterator)
    sampler.set_epoch(4)
    assert list(sampler) == expected[4]
    # It has been: the next one comes.
    sampler.set_epoch(4)
    assert list(sampler) == expected[5]
    sampler.close()


@pytest.mark.parametrize(
    ("whole", "workers"), [(False, 0), (False, 2), (True, 0)], ids=["sampler", "sampler, workers", "dataset"]
)
@pytest.mark.parametrize("stop", [0, 10, 32, 40])
def test_stop_and_resume_equals_uninterrupted(table, tmp_path, whole, workers, stop):
    def loader():
        settings = pipeline(table, checkpoint={"dir": tmp_path / "kept"}, seed=11)
        if whole:
            return StatefulDataLoader(HardNegativeDataset(settings, transform=lambda m: m.ids), batch_size=None)
        return StatefulDataLoader(Rows(table), batch_sampler=HardNegativeBatchSampler(settings), num_workers=workers)

    def ids(item):
        return item if whole else item[0].tolist()

    def endless(loader):
        while True:
            yield from loader

    first = loader()
    items = endless(first)
    for _ in range(stop):
        next(items)
    # As a trainer's checkpoint would have it.
    state = json.loads(json.dumps(first.state_dict())) if whole or not workers else first.state_dict()
    expected = [ids(next(items)) for _ in range(50)]
    del items, first

    second = loader()
    if stop == 0:
        # Nothing to resume from was left, and a folder can hold one run only.
        for file in (tmp_path / "kept").iterdir():
            file.unlink()
    second.load_state_dict(state)
    items = endless(second)
    assert [ids(next(items)) for _ in range(50)] == expected


def test_a_state_of_something_else_is_refused(table):
    sampler = HardNegativeBatchSampler(pipeline(table))
    with pytest.raises(prosampler.StateError, match="what state_dict"):
        sampler.load_state_dict({"epoch": 1})


def test_ranks_come_together_or_not_at_all(table):
    with pytest.raises(ValueError, match="together"):
        HardNegativeBatchSampler(pipeline(table), rank=1)
    sampler = HardNegativeBatchSampler(pipeline(table), rank=1, world_size=4)
    assert "rank 1 of 4" in repr(sampler)
    assert {len(ids) for ids in sampler} == {8, 2}
    sampler.close()


def train_rank(rank, world_size, folder):
    """One of several processes that train together."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    store = torch.distributed.FileStore(f"{folder}/store", world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    torch.manual_seed(0)
    table = vectors(1000)
    # The ranks are found.
    sampler = HardNegativeBatchSampler(pipeline(table))
    assert (sampler.rank, sampler.world_size) == (rank, world_size)
    loader = DataLoader(Rows(table), batch_sampler=sampler)
    encoder = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(16, 8))
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    steps = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for ids, rows in loader:
            optimizer.zero_grad()
            loss_of(encoder, rows).backward()
            optimizer.step()
            steps.append(ids.tolist())
    weights = [p.tolist() for p in encoder.parameters()]
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump({"steps": steps, "weights": weights}, file)
    sampler.close()
    torch.distributed.destroy_process_group()


def test_two_processes_share_every_mini_batch(table, tmp_path):
    torch.multiprocessing.spawn(train_rank, (2, tmp_path), nprocs=2)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["weights"] == two["weights"]
    joined = [a + b for a, b in zip(one["steps"], two["steps"], strict=True)]
    with pipeline(table, stream={"epochs": 2}).start() as stream:
        assert joined == [mini_batch.ids for mini_batch in stream]


def disagree_as_a_rank(rank, world_size, folder):
    """One of several processes with a seed of its own."""
    store = torch.distributed.FileStore(f"{folder}/store", world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    sampler = HardNegativeBatchSampler(pipeline(vectors(1000), seed=rank))
    with pytest.raises(prosampler.RankError, match="at step 0, the samples or graphs of ranks 0 and 1 differ; give"):
        next(iter(sampler))
    sampler.close()
    torch.distributed.destroy_process_group()


def test_processes_that_draw_differently_all_stop(tmp_path):
    torch.multiprocessing.spawn(disagree_as_a_rank, (2, tmp_path), nprocs=2)


def test_a_disagreement_is_named():
    one = Drawn(step=100, graph_version=3, digest=7)
    assert difference([one, one, one]) is None
    assert "rank 2 at step 200; resume" in difference([one, one, one._replace(step=200)])
    assert "graph 3 and rank 1 graph 4; start refreshes by settings" in difference([one, one._replace(graph_version=4)])
    assert "step 100, the samples or graphs of ranks 0 and 1 differ" in difference([one, one._replace(digest=8)])


def follow_rank(rank, world_size, folder, tiny_folder, texts):
    """One of several processes that train an encoder, and whose runs follow it."""
    from sentence_transformers import SentenceTransformer, models

    from prosampler.callbacks import EncoderRefresh
    from prosampler.export import export_model

    store = torch.distributed.FileStore(f"{folder}/store", world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    torch.manual_seed(0)
    transformer = models.Transformer(str(tiny_folder), max_seq_length=32)
    encoder = SentenceTransformer(modules=[transformer, models.Pooling(32)], device="cpu")
    path = f"{folder}/encoder/model.onnx"
    if rank == 0:
        export_model(encoder, path)
    torch.distributed.barrier()
    dataset = HardNegativeDataset(
        SMALL,
        data=table_of(texts),
        encode={"model": path, "column": "text", "max_tokens": 32},
        transform=lambda mini_batch: mini_batch,
    )
    refresh = EncoderRefresh(dataset, encoder, path, every_steps=5)
    refresh.begin()
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-3)
    seen = []
    for mini_batch in dataset:
        made = encoder(encoder.preprocess(mini_batch["text"].to_list()))["sentence_embedding"]
        made = torch.nn.functional.normalize(made, dim=-1)
        optimizer.zero_grad()
        (made @ made.T).mean().backward()
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
        optimizer.step()
        refresh.step()
        seen.append((mini_batch.ids, mini_batch.graph_version, mini_batch.model_version))
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(seen, file)
    dataset.close()
    torch.distributed.destroy_process_group()


def table_of(texts):
    import pyarrow as pa

    return pa.table({"text": texts})


def test_two_processes_swap_graphs_at_the_same_step(glosses, tiny_folder, tmp_path):
    texts = glosses["definition"].to_pylist()[:512]
    torch.multiprocessing.spawn(follow_rank, (2, tmp_path, tiny_folder, texts), nprocs=2)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert [versions for _, *versions in one] == [versions for _, *versions in two]
    # A refresh at steps 5 and 10, each used one step later.
    assert [versions for _, *versions in one] == [[1, 1]] * 6 + [[2, 2]] * 5 + [[3, 3]] * 5
    assert sorted(i for ids, *_ in one + two for i in ids) == list(range(512))


def test_lightning_is_told_not_to_share_out_samples():
    with pytest.raises(TypeError, match="use_distributed_sampler=False"):
        # As it makes a new one of a loader's.
        HardNegativeBatchSampler(SequentialSampler(range(1000)), batch_size=32, drop_last=False)


def test_the_rank_is_asked_for_when_the_stream_starts(table, monkeypatch):
    sampler = HardNegativeBatchSampler(pipeline(table))
    early = HardNegativeBatchSampler(pipeline(table))
    list(early)
    assert (sampler.rank, sampler.world_size) == (0, 1)
    # As a trainer has its processes join once it begins.
    monkeypatch.setattr("prosampler.torch.rank_and_world_size", lambda: (1, 2))
    assert [len(ids) for ids in sampler][:2] == [16, 16]
    assert (sampler.rank, sampler.world_size) == (1, 2)
    with pytest.raises(prosampler.RankError, match="started as rank 0 of 1, and the process is rank 1 of 2 now"):
        list(early)
    # Processes that leave change nothing.
    monkeypatch.undo()
    assert [len(ids) for ids in sampler][:2] == [16, 16]
    early.close()
    sampler.close()


def test_the_rank_is_that_of_accelerate_where_it_is_in_use(monkeypatch):
    from accelerate import PartialState

    from prosampler.torch import rank_and_world_size

    PartialState._reset_state()
    assert rank_and_world_size() == (0, 1)
    assert not PartialState._shared_state
    state = PartialState(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "process_index", 2)
    monkeypatch.setitem(PartialState._shared_state, "num_processes", 4)
    assert state.process_index == 2
    assert rank_and_world_size() == (2, 4)
    PartialState._reset_state()
