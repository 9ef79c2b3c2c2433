"""One walk over all processes of Accelerate, in real processes."""

import json
import os
from itertools import chain, product

import pytest
import torch
from conftest import VECTORS, free_port, vectors
from encoders import Rows
from torch.utils.data import DataLoader

from prosampler import Pipeline
from prosampler.accelerate import AccelerateBatchSampler
from prosampler.torch import HardNegativeDataset

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
    """Two epochs with each of the settings, however Accelerate shares out mini-batches."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    rows, found = Rows(vectors(ROWS)), {}
    for (name, settings), even_batches, split_batches in product(CASES.items(), (True, False), (True, False)):
        config = DataLoaderConfiguration(even_batches=even_batches, split_batches=split_batches)
        accelerator = Accelerator(cpu=True, dataloader_config=config, gradient_accumulation_steps=3)
        assert accelerator.num_processes == world_size
        sampler = AccelerateBatchSampler(pipeline(**settings), accelerator=accelerator)
        encoder = torch.nn.Linear(16, 8)
        loader = DataLoader(rows, batch_sampler=sampler)
        loader, encoder, optimizer = accelerator.prepare(loader, encoder, torch.optim.SGD(encoder.parameters(), 0.1))
        length, steps, gathered, updates = len(loader), [], [], 0
        for _ in range(2):
            for batch in loader:
                with accelerator.accumulate(encoder):
                    accelerator.backward(encoder(batch["vector"]).square().mean())
                    optimizer.step()
                    optimizer.zero_grad()
                updates += accelerator.sync_gradients
                steps.append(batch["id"].tolist())
                gathered.append(accelerator.gather_for_metrics(batch["id"]).tolist())
        weights = accelerator.unwrap_model(encoder).weight.tolist()
        found[f"{name} {even_batches} {split_batches}"] = {
            "steps": steps, "gathered": gathered, "length": length, "updates": updates, "weights": weights
        }  # fmt: skip
        sampler.close()
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(found, file)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_each_process_gets_its_slice_of_one_walk(tmp_path, world_size):
    spawn(collect, world_size, str(tmp_path))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world_size)]
    for name, settings in CASES.items():
        with pipeline(stream={"epochs": 2}, **settings).start() as stream:
            whole = [mini_batch.ids for mini_batch in stream if len(mini_batch) >= world_size]
        size = settings.get("walk", {}).get("batch_size", 32)
        # The last mini-batch counts if each process has a sample of it.
        planned = ROWS // size + (ROWS % size >= world_size and name != "drop_last")
        for even_batches, split_batches in product((True, False), (True, False)):
            found = [rank[f"{name} {even_batches} {split_batches}"] for rank in ranks]
            shares = [len(ids) // world_size for ids in whole]
            for rank, of_rank in enumerate(found):
                slices = [ids[rank * share : (rank + 1) * share] for ids, share in zip(whole, shares, strict=True)]
                assert of_rank["steps"] == slices
                assert of_rank["length"] == planned
                # Nothing counts as a repeat, at an epoch's end either.
                equal = [ids[: world_size * share] for ids, share in zip(whole, shares, strict=True)]
                assert of_rank["gathered"] == equal
            assert all(of_rank["weights"] == found[0]["weights"] for of_rank in found)
            if name != "short":
                assert found[0]["updates"] == 2 * -(-planned // 3)


def refused(rank, world_size):
    """What cannot be shared out is an error on all processes, before any of them waits for another."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    rows = Rows(vectors(ROWS))

    def accelerator(**options):
        return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))

    for option, remedy in (("dispatch_batches", "RemotePipeline"), ("use_stateful_dataloader", "save_state")):
        with pytest.raises(ValueError, match=f"{option} is set, .*leave it out.*{remedy}"):
            AccelerateBatchSampler(pipeline(), accelerator=accelerator(**{option: True}))
    # Trainers do not give their accelerator.
    for split_batches in (True, False):
        sampler = AccelerateBatchSampler(pipeline(), split_batches=split_batches)
        options = {"dispatch_batches": True, "split_batches": split_batches}
        loader = accelerator(**options).prepare(DataLoader(rows, batch_sampler=sampler))
        with pytest.raises(ValueError, match="dispatch_batches is set"):
            next(iter(loader))
        sampler.close()
    sampler = AccelerateBatchSampler(pipeline(), split_batches=True)
    bare = DataLoader(rows, batch_sampler=sampler)
    for loader in (bare, accelerator().prepare(bare)):
        with pytest.raises(ValueError, match="set it for both"):
            next(iter(loader))
    sampler.close()
    loader = DataLoader(rows, batch_sampler=AccelerateBatchSampler(pipeline()))
    with pytest.raises(ValueError, match="split_batches"):
        accelerator(split_batches=True).prepare(loader)
    dataset = HardNegativeDataset(pipeline())
    loader = accelerator().prepare(DataLoader(dataset, batch_size=None))
    with pytest.raises(ValueError, match=r"leave it out of prepare, or use AccelerateBatchSampler"):
        next(iter(loader))
    # Not prepared, it gives this process's shares.
    assert len(next(iter(DataLoader(dataset, batch_size=None)))["id"]) == 32 // world_size
    dataset.close()


def test_what_cannot_be_shared_out_is_refused_on_all_processes():
    spawn(refused, 2)


def loader_of(folder, *, split_batches):
    """An accelerator, a sampler that it saves, and the loader that it has prepared."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=split_batches))
    sampler = AccelerateBatchSampler(pipeline(checkpoint={"dir": f"{folder}/run"}), accelerator=accelerator)
    return accelerator, sampler, accelerator.prepare(DataLoader(Rows(vectors(ROWS)), batch_sampler=sampler))


def saved(rank, world_size, folder, split_batches):
    """Trains, and saves at an epoch's end and in the middle of the next one."""
    accelerator, sampler, loader = loader_of(folder, split_batches=split_batches)
    step = 0
    for _ in range(2):
        for _batch in loader:
            step += 1
            if step in STOPS:
                accelerator.save_state(f"{folder}/{step}")
    sampler.close()


def continued(rank, world_size, folder, split_batches):
    """Goes on from both, for so many steps, and notes the samples of each."""
    for stop in reversed(STOPS):
        accelerator, sampler, loader = loader_of(folder, split_batches=split_batches)
        assert len(loader) == EPOCH
        accelerator.load_state(f"{folder}/{stop}")
        seen = []
        while len(seen) < 40:
            seen += [batch["id"].tolist() for batch in loader]
        with open(f"{folder}/{rank} {stop}.json", "w") as file:
            json.dump(seen, file)
        sampler.close()


@pytest.mark.parametrize(("before", "after", "split_batches"), [(1, 2, False), (2, 4, True)])
def test_load_state_goes_on_exactly_with_more_processes(tmp_path, before, after, split_batches):
    spawn(saved, before, str(tmp_path), split_batches)
    spawn(continued, after, str(tmp_path), split_batches)
    with pipeline(stream={"epochs": 4}).start() as stream:
        expected = [mini_batch.ids for mini_batch in stream]
    for stop in STOPS:
        ranks = [json.loads((tmp_path / f"{rank} {stop}.json").read_text()) for rank in range(after)]
        joined = [[*chain(*slices)] for slices in zip(*ranks, strict=True)]
        # Equal slices leave out a sample of those that are not even.
        assert joined == [ids[: len(ids) // after * after] for ids in expected[stop : stop + len(joined)]]
