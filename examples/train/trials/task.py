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
