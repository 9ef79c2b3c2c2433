"""One walk over all processes of Accelerate, in real processes."""

import json
import os
import random
import socket

import pytest
import torch
from conftest import VECTORS, vectors
from encoders import Rows
from torch.utils.data import DataLoader

from prosampler import Pipeline
from prosampler.accelerate import AccelerateBatchSampler

#: Samples, which no number of processes divides evenly.
ROWS = 1003

EPOCH = 32

#: The steps of two checkpoints: at an epoch's end, and in the middle of the next one.
STOPS = (EPOCH, EPOCH + 13)

#: Settings by name. With distinct labels, of which there are ten, an epoch's last mini-batches stay short.
CASES = {
    "plain": {},
    "drop_last": {"walk": {"drop_last": True}},
    "short": {"walk": {"batch_size": 8}, "guards": {"distinct": ["label"]}},
}


def pipeline(*, walk=None, **settings):
    walk = {**VECTORS["walk"], **(walk or {})}
    return Pipeline({**VECTORS, "walk": walk}, data=vectors(ROWS), seed=3, **settings)


def spawn(function, world_size, *args):
    """Runs ``function(rank, world_size, *args)`` in processes that Accelerate takes for those of one training."""
    torch.multiprocessing.spawn(join, (world_size, free_port(), function, args), nprocs=world_size)


def free_port():
    """A free port below those that systems give by themselves, so that nobody gets it before the processes listen."""
    for port in random.Random(os.getpid()).sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port of 100 is free")


def join(rank, world_size, port, function, args):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    function(rank, world_size, *args)
    torch.distributed.destroy_process_group()


def collect(rank, world_size, folder):
    """Two epochs with each of the settings, and what Accelerate refuses."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    rows, found = Rows(vectors(ROWS)), {}
    for name, settings in CASES.items():
        for even_batches in (True, False):
            config = DataLoaderConfiguration(even_batches=even_batches)
            accelerator = Accelerator(cpu=True, dataloader_config=config, gradient_accumulation_steps=3)
            assert accelerator.num_processes == world_size
            sampler = AccelerateBatchSampler(pipeline(**settings), accelerator=accelerator)
            encoder = torch.nn.Linear(16, 8)
            loader = DataLoader(rows, batch_sampler=sampler)
            loader, encoder, optimizer = accelerator.prepare(
                loader, encoder, torch.optim.SGD(encoder.parameters(), 0.1)
            )
            length, steps, updates = len(loader), [], 0
            for _ in range(2):
                for batch in loader:
                    with accelerator.accumulate(encoder):
                        accelerator.backward(encoder(batch["vector"]).square().mean())
                        optimizer.step()
                        optimizer.zero_grad()
                    updates += accelerator.sync_gradients
                    steps.append(batch["id"].tolist())
            weights = accelerator.unwrap_model(encoder).weight.tolist()
            found[f"{name} {even_batches}"] = {
                "steps": steps, "length": length, "updates": updates, "weights": weights
            }  # fmt: skip
            sampler.close()
    for option in ("split_batches", "dispatch_batches"):
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**{option: True}))
        with pytest.raises(ValueError, match=f"{option} is set"):
            AccelerateBatchSampler(pipeline(), accelerator=accelerator)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)


@pytest.mark.parametrize("world_size", [2, 4])
def test_each_process_gets_its_slice_of_one_walk(tmp_path, world_size):
    spawn(collect, world_size, str(tmp_path))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world_size)]
    for name, settings in CASES.items():
        with pipeline(stream={"epochs": 2}, **settings).start() as stream:
            whole = [mini_batch.ids for mini_batch in stream if len(mini_batch) >= world_size]
        size = settings.get("walk", {}).get("batch_size", 32)
        # The last mini-batch counts if each process has a sample of it.
        planned = ROWS // size + (ROWS % size >= world_size and name != "drop_last")
        for even_batches in (True, False):
            found = [rank[f"{name} {even_batches}"] for rank in ranks]
            for rank, of_rank in enumerate(found):
                shares = [len(ids) // world_size for ids in whole]
                slices = [ids[rank * share : (rank + 1) * share] for ids, share in zip(whole, shares, strict=True)]
                assert of_rank["steps"] == slices
                assert of_rank["length"] == planned
            assert all(of_rank["weights"] == found[0]["weights"] for of_rank in found)
            if name != "short":
                assert found[0]["updates"] == 2 * -(-planned // 3)


def saved(rank, world_size, folder):
    """Trains, and saves at an epoch's end and in the middle of the next one."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    sampler = AccelerateBatchSampler(pipeline(checkpoint={"dir": f"{folder}/run"}), accelerator=accelerator)
    loader = accelerator.prepare(DataLoader(Rows(vectors(ROWS)), batch_sampler=sampler))
    step = 0
    for _ in range(2):
        for _batch in loader:
            step += 1
            if step in STOPS:
                accelerator.save_state(f"{folder}/{step}")
    sampler.close()


def continued(rank, world_size, folder):
    """Goes on from both, for so many steps, and notes the samples of each."""
    from accelerate import Accelerator

    for stop in reversed(STOPS):
        accelerator = Accelerator(cpu=True)
        sampler = AccelerateBatchSampler(pipeline(checkpoint={"dir": f"{folder}/run"}), accelerator=accelerator)
        loader = accelerator.prepare(DataLoader(Rows(vectors(ROWS)), batch_sampler=sampler))
        assert len(loader) == EPOCH
        accelerator.load_state(f"{folder}/{stop}")
        seen = []
        while len(seen) < 40:
            seen += [batch["id"].tolist() for batch in loader]
        with open(f"{folder}/{rank} {stop}.json", "w") as file:
            json.dump(seen, file)
        sampler.close()


def test_load_state_goes_on_exactly_with_more_processes(tmp_path):
    spawn(saved, 1, str(tmp_path))
    spawn(continued, 2, str(tmp_path))
    with pipeline(stream={"epochs": 4}).start() as stream:
        expected = [mini_batch.ids for mini_batch in stream]
    for stop in STOPS:
        one, two = (json.loads((tmp_path / f"{rank} {stop}.json").read_text()) for rank in range(2))
        joined = [a + b for a, b in zip(one, two, strict=True)]
        # Equal slices leave out a sample of those that are not even.
        assert joined == [ids[: len(ids) // 2 * 2] for ids in expected[stop : stop + len(joined)]]
