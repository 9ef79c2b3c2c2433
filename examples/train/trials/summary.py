"""Compares arms over paired seeds: means, differences and their intervals."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .record import Result


@dataclass(frozen=True)
class Difference:
    """How an arm's scores differ from another's, seed by seed."""

    seeds: int
    mean: float
    """Mean score of the arm."""
    relative: float
    """Mean difference as a share of the other's mean score."""
    half_width: float
    """Half of the 95 % interval of `relative`; NaN with fewer than two seeds."""

    def __str__(self) -> str:
        interval = " (one seed)" if self.seeds < 2 else f" ± {self.half_width:.1%}"
        return f"{self.relative:+.1%}{interval}".replace("%", " %")

    @property
    def is_significant(self) -> bool:
        return abs(self.relative) > self.half_width


def difference(scores: dict[int, float], others: dict[int, float]) -> Difference | None:
    """The scores of an arm by seed against another's, over the seeds that both have."""
    seeds = sorted(scores.keys() & others.keys())
    if not seeds:
        return None
    ours, theirs = (np.array([of[seed] for seed in seeds]) for of in (scores, others))
    differences, base = ours - theirs, theirs.mean()
    n = len(seeds)
    half_width = stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n) / base if n > 1 else math.nan
    return Difference(n, float(ours.mean()), float(differences.mean() / base), float(half_width))


def scores_by_seed(results: Iterable[Result], split: str, metric: str) -> dict[str, dict[int, float]]:
    """Scores by arm and seed, of results that differ in nothing else."""
    scores: dict[str, dict[int, float]] = defaultdict(dict)
    for result in results:
        if split in result:
            scores[result["trial"]["arm"]][result["trial"]["seed"]] = result[split][metric]
    return scores
