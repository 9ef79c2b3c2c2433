"""Plots of results."""

from pathlib import Path

import matplotlib.pyplot as plt

from .summary import Difference

COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2")


def gains(title: str, rows: dict[str, Difference], path: Path) -> None:
    """A point with its interval for each row: the gain over uniform mini-batches, in per cent."""
    figure, axes = plt.subplots(figsize=(7, 0.6 + 0.35 * len(rows)), layout="constrained")
    axes.axvline(0, color="#888", linewidth=1)
    axes.margins(y=0.2)
    for place, (name, gain) in enumerate(rows.items()):
        axes.errorbar(100 * gain.relative, -place, xerr=100 * gain.half_width, fmt="o", color=COLORS[0], capsize=3)
    axes.set_yticks([-place for place in range(len(rows))], list(rows))
    axes.set_xlabel("gain over uniform mini-batches, %, with its 95 % interval")
    axes.set_title(title, loc="left", fontsize=10)
    finish(figure, path)


def dials(title: str, panels: dict[str, dict[str, Difference]], own: Difference, path: Path) -> None:
    """A panel for each dial: the gain of each of its values with its interval, beside that of the defaults."""
    columns = 3
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(9, 2.2 * rows), layout="constrained", squeeze=False, sharey=True
    )
    for axes, (dial, values) in zip(grid.flat, panels.items(), strict=False):
        axes.axhline(0, color="#888", linewidth=1)
        axes.axhline(100 * own.relative, color=COLORS[1], linewidth=1, linestyle="dashed")
        for place, gain in enumerate(values.values()):
            axes.errorbar(place, 100 * gain.relative, yerr=100 * gain.half_width, fmt="o", color=COLORS[0], capsize=3)
        long = max(map(len, values)) > 6
        axes.set_xticks(range(len(values)), list(values), rotation=20 if long else 0, fontsize=8)
        axes.margins(x=0.15)
        axes.set_title(dial, loc="left", fontsize=9)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(f"{title}: gain over uniform, %; dashed: the defaults", x=0.01, ha="left", fontsize=10)
    finish(figure, path)


def curves(title: str, axis: str, lines: dict[str, dict[float, list[float]]], path: Path) -> None:
    """A line for each arm: mean scores over a value on a logarithmic axis, and every seed's as a dot."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for color, (name, points) in zip(COLORS, lines.items(), strict=False):
        values = sorted(points)
        axes.plot(values, [sum(points[v]) / len(points[v]) for v in values], color=color, label=name)
        axes.scatter([v for v in values for _ in points[v]], [s for v in values for s in points[v]], s=10, color=color)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({v for points in lines.values() for v in points}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_xlabel(axis)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontsize=10)
    finish(figure, path)


def finish(figure: plt.Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
