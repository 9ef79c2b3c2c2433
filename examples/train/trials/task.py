"""What a modality tells: its data, its model, its loss and its scores."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn


class Step(NamedTuple):
    """What a training step of a task makes."""

    loss: Tensor
    vectors: Tensor
    """`[batch, dimension]`, of unit length: the samples as the graph sees them."""
    false_negatives: float
    """The share of the mini-batch's pairs that are false negatives, 0 to 1; NaN if nothing tells."""


@dataclass
class Task:
    """A data set with what is trained on it."""

    samples: int
    model: nn.Module
    step: Callable[[np.ndarray, int], Step]
    """Makes the step of some samples; the number is that of the step, from 0."""
    embed: Callable[[np.ndarray], Tensor]
    """The vectors of some samples as `Step.vectors` has them, without views or dropout; called without gradients."""
    score: Callable[[str], dict[str, float]]
    """What the model is worth on the split `dev` or `test`; the first is the one to compare by."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Columns of the training samples that guards may use."""


def in_parts(embed: Callable[[np.ndarray], Tensor], rows: np.ndarray, size: int = 256) -> np.ndarray:
    """`embed` of all `rows`, `size` at a time: `[rows, dimension]`."""
    return np.concatenate([embed(rows[i : i + size]).numpy() for i in range(0, len(rows), size)])


def measure_again(model: nn.Module, encode: Callable[[np.ndarray], Tensor], samples: int) -> None:
    """Measures the means and variances of BatchNorm over random samples, at most 4,096 of all.

    Those that were kept in training are of its mini-batches, and hard ones vary less than the data do.
    """
    norms = [norm for norm in model.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all that follows
        norm.train()
    in_parts(encode, np.random.default_rng(0).permutation(samples)[:4096])
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()
