"""Mini-batches for the workers of Ray Train, each of which has random shards of the rows."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import ray.train

from .._prosampler import MiniBatch
from ..epochs import SUPERSEDED, Epochs
from ..errors import ArgumentError, ClosedError, ConfigError, StateError
from ..handle import RefreshHandle
from ..pipeline import Pipeline
from ..settings import section
from .data import COLUMN, read_manifest


class HardNegativeIterator:
    """Hard-negative mini-batches for one worker of Ray Train, from random shards of the rows.

    Each ``iter`` yields one epoch, in which every worker has equally many mini-batches, so that none waits for another
    in vain. Where guards would end a shard's epoch before those of the others, samples come once more, which is logged.

    The rows are divided into as many shards as ``shards`` says, and there is a run over each, which talks to no other:
    its graph is the paper's graph of all rows (docs/scale.md says when). The number of shards stays what it was when
    the training began, and any number of workers that fits takes them:

    - as many workers as shards: each has one;
    - fewer: each takes the mini-batches of several shards in turn;
    - more: several neighboring ranks share each mini-batch of one shard.

    Args:
        pipeline: a pipeline file or a dict, as for ``Pipeline``. ``walk.batch_size`` is that of a shard's run. Without
            a ``checkpoint.dir`` that all workers reach, nothing can be resumed.
        shards: how many shards there are, divided by a hash of the column ``shard.by``; or the folder that
            ``prosampler.ray.shards`` has written. By default one for each worker. A number with many divisors, such as
            12, leaves more numbers of workers to choose from later.
        reshuffle: ``"epoch"`` divides the rows anew in each epoch, so that samples meet those of other shards. Each
            epoch is a run of its own then: it reads its rows, embeds those that are not in ``encode.cache_dir``,
            builds its graph, forgets pushed vectors, and begins schedules and warm-ups anew. ``"never"`` by default.
        transform: makes an item of a mini-batch; by default ``to_torch()``, its columns by name.
        resume: a folder, or a checkpoint of Ray, that ``save`` has written to; by default that of Ray Train, if there
            is one. ``False`` begins anew.
        rank, world_size: which worker this is; by default what Ray Train says.
        sections: more settings by section, as for ``Pipeline``.

    Raises:
        ArgumentError: shards and workers do not fit.
        ConfigError: settings are unknown or out of range; the message lists all faults.
        StateError: the checkpoint lacks what a worker should have saved, or is of other shards.
    """

    def __init__(
        self,
        pipeline: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        /,
        *,
        shards: int | str | os.PathLike[str] | None = None,
        reshuffle: Literal["never", "epoch"] = "never",
        transform: Callable[[MiniBatch], Any] | None = None,
        resume: Any = None,
        rank: int | None = None,
        world_size: int | None = None,
        **sections: Any,
    ) -> None:
        if (rank is None) != (world_size is None):
            raise ArgumentError("give rank and world_size together, or neither")
        if rank is None or world_size is None:
            context = ray.train.get_context()
            rank, world_size = context.get_world_rank(), context.get_world_size()
            if resume is None:
                resume = ray.train.get_checkpoint()
        if reshuffle not in ("never", "epoch"):
            raise ArgumentError(f'reshuffle is {reshuffle!r}; give "never" or "epoch"')
        saved = _read(resume) if resume is not None and resume is not False else None
        if shards is None:
            shards = world_size if saved is None else len(saved)
        folder = None if isinstance(shards, int) else os.fspath(shards)
        if folder is not None and reshuffle == "epoch":
            raise ArgumentError('the rows of a folder are divided; give reshuffle="never", or a number of shards')
        manifest = None if folder is None else read_manifest(folder)
        count = shards if isinstance(shards, int) else int(manifest["count"] if manifest else 0)
        own, share = _own(count, rank, world_size)
        if saved is not None:
            _check(saved, count, reshuffle, world_size)
        self.epoch = 0
        """The epoch that the next ``iter`` yields, from 0; the one in the middle of which it continues, after a
        resume."""
        self._transform = transform or MiniBatch.to_torch
        self._world_size = world_size
        self._saves = share[0] == 0
        settings = _Settings(pipeline, sections, count, folder, manifest)
        self._shards = [_Shard(settings, index, share, reshuffle) for index in own]
        self._last: _Shard | None = None
        self._within = self._continues = False
        self._iterator = 0
        """The number of the only iterator that may take mini-batches."""
        if saved is not None:
            self.epoch = saved[own[0]]["epoch"]
            self._continues = True
            for shard in self._shards:
                shard.load(saved[shard.index])

    def __iter__(self) -> Iterator[Any]:
        self._iterator += 1
        own = self._iterator
        if self._within and not self._continues:
            # The epoch before was left in the middle.
            self.epoch += 1
        if not self._continues:
            for shard in self._shards:
                shard.taken = 0
        self._within, self._continues = True, False
        runs = {shard: shard.mini_batches(self.epoch) for shard in self._shards}
        while runs:
            # After a resume, the one that is behind goes first.
            shard = min(runs, key=lambda shard: (shard.taken, shard.index))
            mini_batch = next(runs[shard], None)
            if mini_batch is None:
                del runs[shard]
                continue
            shard.taken += 1
            self._last = shard
            yield self._transform(mini_batch)
            if own != self._iterator:
                raise ClosedError(SUPERSEDED)
        self.epoch += 1
        self._within = False
        for shard in self._shards:
            shard.taken = 0

    def __len__(self) -> int:
        """The number of this worker's mini-batches in an epoch. The first use starts the runs."""
        return sum(shard.length(self.epoch) for shard in self._shards)

    @property
    def handle(self) -> RefreshHandle:
        """Takes vectors and losses for the run whose mini-batch was yielded last, and starts its refreshes."""
        if self._last is None:
            raise ClosedError("no mini-batch was taken yet; take one first, whose run this is for")
        return self._last.handle

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes this worker's part of a checkpoint, small files, into the folder that it reports.

        Every worker must do so at the same step, and report its folder: Ray Train puts them together.

        Raises:
            ConfigError: there is no ``checkpoint.dir``.
        """
        for shard in self._shards:
            state = shard.keep()
            if self._saves:
                state |= {"epoch": self.epoch, "shards": shard.count, "world_size": self._world_size}
                Path(folder, _name(shard.index)).write_text(json.dumps(state))

    def close(self) -> None:
        """Ends the runs and their threads."""
        self._iterator += 1
        for shard in self._shards:
            shard.close()

    def __repr__(self) -> str:
        indices = ", ".join(str(shard.index) for shard in self._shards)
        return f"<prosampler.ray.HardNegativeIterator: shards {indices} of {self._shards[0].count}, epoch {self.epoch}>"


class _Settings:
    """Makes the pipelines of shards."""

    def __init__(
        self,
        pipeline: Any,
        sections: dict[str, Any],
        count: int,
        folder: str | None,
        manifest: dict[str, Any] | None,
    ) -> None:
        self.count = count
        self._folder = folder
        if folder is not None and manifest is not None:
            source = sections.get("source", {})
            source = source if isinstance(source, Mapping) else {}
            walk = {**section(pipeline, "walk"), **sections.get("walk", {})}
            # No more than the smallest shard has, whatever the settings say.
            walk["epoch_samples"] = min(manifest["rows"] + [n for n in [walk.get("epoch_samples")] if n is not None])
            sections = {**sections, "source": {**source, "uri": self._uri(0)}, "walk": walk}
        elif count > 1:
            sections = {**sections, COLUMN: {"index": 0, "count": count, **sections.get(COLUMN, {})}}
        self._pipeline = Pipeline(pipeline, **sections)

    @property
    def is_resumable(self) -> bool:
        return self._pipeline.checkpoint_dir is not None

    def _uri(self, index: int) -> str:
        return f"{self._folder}/{COLUMN}={index}"

    def of(self, index: int, seed: int | None) -> Pipeline:
        """The pipeline of a shard; with a seed, of one epoch that divides the rows by it."""
        changed: dict[str, Any] = {}
        if self._folder is not None:
            changed["source"] = {"uri": self._uri(index)}
        elif self.count > 1:
            changed[COLUMN] = {"index": index} if seed is None else {"index": index, "seed": seed}
        if (folder := self._pipeline.checkpoint_dir) is not None:
            folder = folder / f"{COLUMN}-{index}"
            changed["checkpoint"] = {"dir": folder if seed is None else folder / f"epoch-{seed}"}
        return self._pipeline.with_settings(**changed)


class _Shard:
    """The run over one shard; if rows are divided anew in each epoch, that of the epoch."""

    def __init__(self, settings: _Settings, index: int, share: tuple[int, int], reshuffle: str) -> None:
        self.index = index
        self.count = settings.count
        self.taken = 0
        """Mini-batches of the epoch that were taken."""
        self._settings = settings
        self._share = share
        self._reshuffle = reshuffle
        self._run: Epochs | None = None
        self._seed: int | None = None

    def _of(self, epoch: int) -> Epochs:
        seed = epoch if self._reshuffle == "epoch" else None
        if self._run is None or seed != self._seed:
            self.close()
            self._run = Epochs(self._settings.of(self.index, seed), lambda: self._share, progress=False)
            self._seed = seed
        return self._run

    def mini_batches(self, epoch: int) -> Iterator[MiniBatch]:
        run = self._of(epoch)
        run.set_epoch(0 if self._seed is not None else epoch)
        return iter(run)

    def length(self, epoch: int) -> int:
        return len(self._of(epoch))

    @property
    def handle(self) -> RefreshHandle:
        if self._run is None:
            raise ClosedError("this iterator is closed; make another one")
        return self._run.handle

    def keep(self) -> dict[str, Any]:
        """Keeps the run resumable from here, and returns its state."""
        if not self._settings.is_resumable:
            raise ConfigError("checkpoint.dir is not set; give a folder that all workers reach, to resume from it")
        run = self._of(0 if self._seed is None else self._seed)
        run.stream.keep()
        return {"taken": self.taken, "reshuffle": self._reshuffle, "run": run.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.taken = state["taken"]
        self._of(state["epoch"]).load_state_dict(state["run"])

    def close(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None


def _own(count: int, rank: int, world_size: int) -> tuple[range, tuple[int, int]]:
    """The shards of a worker, and its share of their mini-batches."""
    if count < 1:
        raise ArgumentError(f"shards is {count}; give 1 or more")
    if world_size % count == 0:
        ranks = world_size // count
        return range(rank // ranks, rank // ranks + 1), (rank % ranks, ranks)
    if count % world_size == 0:
        each = count // world_size
        return range(rank * each, (rank + 1) * each), (0, 1)
    workers = [n for n in range(1, count + 1) if count % n == 0]
    raise ArgumentError(
        f"{count} shards cannot be taken evenly by {world_size} workers; train with {_or(workers)} workers, or a "
        f"multiple of {count}"
    )


def _or(numbers: list[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last


def _name(index: int) -> str:
    return f"prosampler-shard-{index}.json"


def _read(checkpoint: Any) -> list[dict[str, Any]]:
    """The states of all shards in a checkpoint, in order."""
    is_of_ray = hasattr(checkpoint, "as_directory")
    folder: AbstractContextManager[Any] = checkpoint.as_directory() if is_of_ray else nullcontext(checkpoint)
    with folder as name:
        files = list(Path(name).glob("prosampler-shard-*.json"))
        if not files:
            raise StateError(
                f"the checkpoint {name} has no state of a HardNegativeIterator; call save(folder) on every worker "
                "before each report, or give resume=False to begin anew"
            )
        count = json.loads(files[0].read_text())["shards"]
        for index in range(count):
            if not Path(name, _name(index)).is_file():
                raise StateError(
                    f"the checkpoint {name} has no {_name(index)}, of {count} shards; call save(folder) on every "
                    "worker, and report the folder of each"
                )
        return [json.loads(Path(name, _name(index)).read_text()) for index in range(count)]


def _check(saved: list[dict[str, Any]], count: int, reshuffle: str, world_size: int) -> None:
    """Refuses states that do not fit together, or to these shards."""
    if len(saved) != count:
        raise StateError(f"the checkpoint is of {len(saved)} shards, not {count}; give shards={len(saved)}")
    if reshuffle != saved[0]["reshuffle"]:
        raise StateError(f"the checkpoint was saved with reshuffle={saved[0]['reshuffle']!r}; give that")
    places = {(state["epoch"], state["taken"]) for state in saved}
    if len(places) > 1 and world_size != saved[0]["world_size"]:
        before = saved[0]["world_size"]
        raise StateError(
            f"the checkpoint was saved between the shards that a worker takes in turn, and only {before} workers can "
            f"go on from there; resume with {before}, and save after a multiple of {count // before} mini-batches"
        )
