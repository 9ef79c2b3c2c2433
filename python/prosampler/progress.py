"""Progress bars of a start, in a terminal and in a notebook."""

import sys
from types import TracebackType
from typing import Any, Self

Progress = tuple[str, int, int | None]
"""Stage (``reading``, ``embedding``, ``graph``), samples done, samples in all where known."""


class Bars:
    """One bar for each stage.

    Args:
        shown: whether bars are shown; ``None`` means only in a terminal or a notebook.
    """

    def __init__(self, shown: bool | None) -> None:
        self._shown = _watched() if shown is None else shown
        self._stage: str | None = None
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._finish(complete=kind is None)

    def show(self, stages: list[Progress]) -> None:
        """Moves the bars of the stages that advanced, in their order."""
        if not self._shown:
            return
        for stage, done, total in stages:
            if stage != self._stage:
                self._finish(complete=True)
                self._stage = stage
                self._bar = _bar()(total=total, desc=stage, unit=" samples", unit_scale=True)
            self._bar.update(done - self._bar.n)

    def _finish(self, *, complete: bool) -> None:
        if self._bar is not None:
            if complete and self._bar.total:
                self._bar.update(self._bar.total - self._bar.n)
            self._bar.close()
            self._bar = None


def _watched() -> bool:
    in_notebook = "ipykernel" in sys.modules
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())


def _bar() -> Any:
    import warnings

    with warnings.catch_warnings():
        # Without ipywidgets it draws bars of text, which is fine.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        # Otherwise tqdm would leave a thread behind.
        monitor_interval = 0

    return Bar
