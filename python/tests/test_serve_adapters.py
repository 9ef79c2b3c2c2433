"""Adapters for PyTorch work over a server as they do over a pipeline in the process."""

import json

import pytest
import torch
from conftest import vectors
from serving import pipeline
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import prosampler
from prosampler import RemotePipeline
from prosampler.accelerate import AccelerateBatchSampler
from prosampler.torch import HardNegativeBatchSampler, HardNegativeDataset


@pytest.mark.parametrize("adapter", [HardNegativeBatchSampler, AccelerateBatchSampler])
def test_samplers_over_a_server(table, serve, adapter):
    server = serve(pipeline(table))
    sampler = adapter(RemotePipeline(server.uri))
    local = adapter(pipeline(table))
    assert len(sampler) == len(local) == 32
    assert "batch size 32" in repr(sampler)
    assert sampler.drop_last is False
    for _ in range(2):
        assert list(sampler) == list(local)
    with pytest.raises(prosampler.StateError, match=r"stream\.epochs"):
        next(iter(sampler))
    sampler.close()
    local.close()


def test_a_data_set_over_a_server_resumes_in_the_middle_of_an_epoch(table, serve, tmp_path):
    server = serve(pipeline(table, checkpoint={"dir": tmp_path}))

    def loader():
        dataset = HardNegativeDataset(RemotePipeline(server.uri), transform=lambda mini_batch: mini_batch.ids)
        # Trainers ask for it before they say which state they go on from.
        assert len(dataset) == 32
        return StatefulDataLoader(dataset, batch_size=None)

    expected = [mini_batch.ids for mini_batch in pipeline(table)]
    first = loader()
    items = iter(first)
    assert [next(items) for _ in range(12)] == expected[:12]
    first.dataset.keep()
    state = json.loads(json.dumps(first.state_dict()))
    assert [next(items) for _ in range(10)] == expected[12:22]
    del items, first
    second = loader()
    second.load_state_dict(state)
    assert list(second) == expected[12:32]
    assert list(second) == expected[32:]
    second.dataset.close()


def test_a_sampler_over_a_server_leaves_out_a_stretch(table, serve, tmp_path):
    server = serve(pipeline(table, checkpoint={"dir": tmp_path}))
    sampler = HardNegativeBatchSampler(RemotePipeline(server.uri))
    items = iter(sampler)
    for _ in range(10):
        next(items)
    sampler.keep()
    sampler.load_state_dict(prosampler.skip(sampler.state_dict(), 7))
    assert [*sampler, *sampler] == [mini_batch.ids for mini_batch in pipeline(table)][17:]
    sampler.close()


def test_callbacks_that_set_refreshes_say_where_they_belong(table, serve, tmp_path):
    from prosampler.callbacks import EncoderRefresh

    server = serve(pipeline(table))
    sampler = HardNegativeBatchSampler(RemotePipeline(server.uri))
    refresh = EncoderRefresh(sampler, torch.nn.Linear(16, 8), tmp_path / "model.onnx", every_steps=10)
    with pytest.raises(prosampler.ConfigError, match=r"refresh\.every_steps=10.* cannot be set here"):
        refresh.begin()


def train_rank(rank, world_size, folder, uri):
    """One of several processes that train together."""
    store = torch.distributed.FileStore(f"{folder}/store", world_size)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    # The ranks are found, and compare what they got.
    dataset = HardNegativeDataset(RemotePipeline(uri))
    assert (dataset.rank, dataset.world_size) == (rank, world_size)
    steps = []
    for _ in range(2):
        for columns in DataLoader(dataset, batch_size=None):
            total = columns["vector"].sum()
            torch.distributed.all_reduce(total)
            steps.append(columns["id"].tolist())
    assert dataset.epochs._check.__self__._group is not None
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(steps, file)
    dataset.close()
    torch.distributed.destroy_process_group()


def test_two_processes_share_every_mini_batch(serve, tmp_path):
    table = vectors(1000)
    server = serve(pipeline(table, stream={"world_size": 2}))
    torch.multiprocessing.spawn(train_rank, (2, tmp_path, server.uri), nprocs=2)
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    joined = [a + b for a, b in zip(one, two, strict=True)]
    assert joined == [mini_batch.ids for mini_batch in pipeline(table)]
