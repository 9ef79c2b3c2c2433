"""What mini-batches cost a training: processor time and waits."""

import time
from types import TracebackType


class Spent:
    """Seconds of this thread within `with` blocks: `cpu` of the processor, `waited` without it."""

    def __init__(self) -> None:
        self.cpu, self.waited = 0.0, 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time(), time.perf_counter()

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        cpu, wall = self._began
        cpu = time.thread_time() - cpu
        self.cpu += cpu
        self.waited += time.perf_counter() - wall - cpu


class Clock:
    """Runs from where it is made."""

    def __init__(self) -> None:
        self.wall, self.own, self.all = time.perf_counter(), time.thread_time(), time.process_time()

    def shares(self, spent: Spent) -> dict[str, float]:
        """`sampler_share` and `wait_share` of a training until now, of which `spent` went to its mini-batches."""
        own = time.thread_time() - self.own
        others = time.process_time() - self.all - own
        training, wall = own - spent.cpu, time.perf_counter() - self.wall - spent.waited - spent.cpu
        return {
            "sampler_share": round((spent.cpu + others) / training, 4),
            "wait_share": round(spent.waited / wall, 4),
        }
