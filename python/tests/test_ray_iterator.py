"""The mini-batches of Ray Train's workers: every row once, in step, and the same after any resume."""

import json
import random
from itertools import chain

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import VECTORS, vectors

import prosampler
from prosampler.ray import HardNegativeIterator

ROWS = 1200
SHARDS = 4


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(vectors(ROWS), path)
    return path


def workers(rows, world_size, folder=None, **more):
    """The iterators of all workers, which yield the ids of the data."""
    more = {"shards": SHARDS, "shard": {"by": "id"}, "resume": False, **more}
    settings = {**VECTORS, "source": {"uri": str(rows)}, "checkpoint": {"dir": folder}}
    settings["walk"] = {**settings["walk"], "batch_size": 16}

    def of(rank):
        def transform(mini_batch):
            return mini_batch.rows["id"]

        return HardNegativeIterator(settings, transform=transform, rank=rank, world_size=world_size, **more)

    return [of(rank) for rank in range(world_size)]


def ids(column):
    return np.from_dlpack(column).tolist()


def epoch(workers):
    """What each worker takes in its next epoch, in turn."""
    return [list(map(ids, worker)) for worker in workers]


def close(workers):
    for worker in workers:
        worker.close()


def by_shard(taken, world_size, steps):
    """The mini-batches of each shard, of what workers took in some steps."""
    if world_size >= SHARDS:
        ranks = world_size // SHARDS
        groups = [taken[shard * ranks : (shard + 1) * ranks] for shard in range(SHARDS)]
        return [[sorted(chain(*parts)) for parts in zip(*group, strict=True)] for group in groups]
    each = SHARDS // world_size
    return [[sorted(batch) for batch in taken[shard // each][shard % each :: each]] for shard in range(SHARDS)]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_workers_are_in_step_and_have_every_row_in_two_epochs(rows, world_size):
    own = workers(rows, world_size)
    epochs = []
    for number in range(2):
        assert {worker.epoch for worker in own} == {number}
        taken = epoch(own)
        assert len({len(of_one) for of_one in taken}) == 1
        assert [len(worker) for worker in own] == [len(taken[0])] * world_size
        of_epoch = [id for of_one in taken for batch in of_one for id in batch]
        assert len(set(of_epoch)) == len(of_epoch), "a row comes twice"
        epochs.append(set(of_epoch))
    close(own)
    assert len(epochs[0]) == len(epochs[1])
    assert epochs[0] | epochs[1] == set(range(ROWS))


def take(workers, steps):
    runs = [iter(worker) for worker in workers]
    return [[ids(next(run)) for _ in range(steps)] for run in runs], runs


@pytest.mark.parametrize("reshuffle", ["never", "epoch"])
def test_any_number_of_workers_goes_on(rows, tmp_path, reshuffle):
    """Each shard's mini-batches are those of the uninterrupted run, whoever takes them."""
    whole = workers(rows, 1, tmp_path / "whole", reshuffle=reshuffle)
    expected = [by_shard(epoch(whole), 1, 0) for _ in range(3)]
    close(whole)
    if reshuffle == "epoch":
        members = [[{id for batch in of_shard for id in batch} for of_shard in of_epoch] for of_epoch in expected]
        assert all(len(a & b) < 0.5 * len(a) for a, b in zip(members[0], members[1], strict=True))

    random_ = random.Random(7)
    worlds = [1, 2, 4, 8]
    for case in range(4):
        folder = tmp_path / str(case)
        world_size = random_.choice(worlds)
        own = workers(rows, world_size, folder, reshuffle=reshuffle)
        found = [[[] for _ in range(SHARDS)] for _ in range(3)]
        for part in range(4):
            # The worker's epoch may end meanwhile.
            number = own[0].epoch
            left = [iter(worker) for worker in own]
            each = max(1, SHARDS // world_size)
            steps = each * random_.randrange(1, 8)
            taken = [[ids(batch) for _, batch in zip(range(steps), run, strict=False)] for run in left]
            for shard, batches in enumerate(by_shard(taken, world_size, steps)):
                found[number][shard] += batches
            checkpoint = tmp_path / f"{case}-{part}"
            checkpoint.mkdir()
            for worker in own:
                worker.save(checkpoint)
            close(own)
            world_size = random_.choice(worlds)
            own = workers(rows, world_size, folder, reshuffle=reshuffle, resume=checkpoint)
        while own[0].epoch < 3:
            number = own[0].epoch
            for shard, batches in enumerate(by_shard(epoch(own), world_size, 0)):
                found[number][shard] += batches
        close(own)
        assert found == expected, f"case {case}"


def test_a_checkpoint_between_two_shards_is_for_as_many_workers(rows, tmp_path):
    own = workers(rows, 2, tmp_path / "run")
    whole = workers(rows, 2, tmp_path / "whole")
    expected = epoch(whole)
    close(whole)
    taken, _ = take(own, 5)
    for worker in own:
        worker.save(tmp_path)
    close(own)
    with pytest.raises(prosampler.StateError, match=r"only 2 workers.*multiple of 2 mini-batches"):
        workers(rows, 1, tmp_path / "run", resume=tmp_path)
    own = workers(rows, 2, tmp_path / "run", resume=tmp_path)
    rest = epoch(own)
    close(own)
    assert [before + after for before, after in zip(taken, rest, strict=True)] == expected


@pytest.mark.parametrize(("most", "expected"), [(None, 260), (128, 128), (290, 260)])
@pytest.mark.parametrize("in_file", [False, True])
def test_epochs_over_a_folder_are_as_long_as_its_smallest_shard_or_shorter(tmp_path, most, expected, in_file):
    for index, size in enumerate((300, 260)):
        folder = tmp_path / f"shard={index}"
        folder.mkdir()
        pq.write_table(vectors(size), folder / "rows.parquet")
    manifest = {"by": "id", "count": 2, "seed": 0, "rows": [300, 260]}
    (tmp_path / "shards.json").write_text(json.dumps(manifest))
    walk = {"batch_size": 32} if most is None else {"batch_size": 32, "epoch_samples": most}
    settings = {**VECTORS, "walk": walk}
    if in_file:
        lines = (
            "encode = { feature = 'vector', column = 'vector' }\ngraph = { candidates = 100, neighbors = 8 }\n[walk]\n"
        )
        settings = tmp_path / "run.toml"
        settings.write_text(lines + "\n".join(f"{key} = {value}" for key, value in walk.items()))
    for rank in range(2):
        own = HardNegativeIterator(settings, shards=tmp_path, rank=rank, world_size=2, transform=lambda m: len(m.ids))
        assert sum(own) == expected
        own.close()


def test_pushes_reach_the_run_of_the_last_mini_batch(rows):
    (own,) = workers(rows, 1, shards=2)
    with pytest.raises(prosampler.ClosedError, match="take one first"):
        _ = own.handle
    run = iter(own)
    for _ in range(2):
        next(run)
        handle = own.handle
        handle.push_embeddings([0, 1], np.ones((2, 16), np.float32))
        assert not handle.refresh_now().skipped
    assert [shard.handle.graph_version for shard in own._shards] == [2, 2]
    own.close()


def test_only_the_newest_iterator_takes_mini_batches(rows):
    (worker,) = workers(rows, 1)
    older = iter(worker)
    next(older)
    newer = iter(worker)
    next(newer)
    with pytest.raises(prosampler.ClosedError, match="another one has begun"):
        next(older)
    assert len(list(newer)) == len(worker) - 1
    worker.close()


def test_what_does_not_fit_is_an_error(rows, tmp_path):
    with pytest.raises(prosampler.ArgumentError, match=r"4 shards.* 3 workers.* 1, 2 or 4 workers, or a multiple of 4"):
        workers(rows, 3)
    with pytest.raises(prosampler.ArgumentError, match="reshuffle"):
        workers(rows, 1, reshuffle="always")
    with pytest.raises(prosampler.ArgumentError, match="together"):
        HardNegativeIterator(rank=1)
    with pytest.raises(prosampler.ConfigError, match=r"shard\.by"):
        workers(rows, 1, shard={})
    with pytest.raises(prosampler.FileError, match=r"shards\.json"):
        workers(rows, 1, shards=tmp_path)
    with pytest.raises(prosampler.StateError, match="save"):
        workers(rows, 1, resume=tmp_path)
    (own,) = workers(rows, 1)
    next(iter(own))
    with pytest.raises(prosampler.ConfigError, match=r"checkpoint\.dir"):
        own.save(tmp_path)
    own.close()
    (own,) = workers(rows, 1, tmp_path / "run")
    own.save(tmp_path)
    own.close()
    with pytest.raises(prosampler.StateError, match="of 4 shards, not 2"):
        workers(rows, 1, shards=2, resume=tmp_path)
    with pytest.raises(prosampler.StateError, match="'never'"):
        workers(rows, 1, reshuffle="epoch", resume=tmp_path)
    assert json.loads((tmp_path / "prosampler-shard-3.json").read_text())["shards"] == 4
    (tmp_path / "prosampler-shard-2.json").unlink()
    with pytest.raises(prosampler.StateError, match=r"no prosampler-shard-2\.json, of 4 shards"):
        workers(rows, 1, resume=tmp_path)
