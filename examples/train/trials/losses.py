"""Contrastive losses by name, of two views `a`, `b` [n, d] of the same samples, of unit length.

With s(x, y) = x · y / temperature, each of the 2n views x has one positive p, its other view, and N = 2n − 2 negatives
y, the views of all other samples.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from training import info_nce, nt_xent

TAU_PLUS = 0.1
"""The share of negatives that DCL and HCL take to be false, τ⁺."""
BETA = 1.0
"""How much harder HCL's negatives are than those of the mini-batch."""

Loss = Callable[[Tensor, Tensor, float], Tensor]


def dcl(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """The debiased contrastive loss (Chuang et al., NeurIPS 2020, arXiv 2007.00224; M = 1, Q = N).

    The mean of −log(e^s(x, p) / (e^s(x, p) + N g)) over all views x, with
    g = max((mean of e^s(x, y) over y − τ⁺ e^s(x, p)) / (1 − τ⁺), e^(−1 / temperature)). Where this is the second, for
    the first is less than nothing, negatives have no gradient: at a low temperature that is all of them.
    """
    positive, negative = similarities(a, b, temperature)
    return debiased(positive, negative.exp().mean(dim=1), negative.shape[1], temperature)


def hcl(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """The loss with hard negatives (Robinson et al., ICLR 2021, arXiv 2010.04592; their estimator "hard").

    As `dcl`, but the mean over y is weighted by e^(β s(x, y)), as in their code. With β = 0 it is `dcl`.
    """
    positive, negative = similarities(a, b, temperature)
    mean = (torch.softmax(BETA * negative, dim=1) * negative.exp()).sum(dim=1)
    return debiased(positive, mean, negative.shape[1], temperature)


def similarities(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """For each view, s of its positive [2n] and of its negatives [2n, N].

    All are less by 1 / temperature, which no loss here notices, so that no exponential is above one.
    """
    views, n = torch.cat([a, b]), len(a)
    scores = (views @ views.T - 1) / temperature
    others = ~torch.eye(n, dtype=torch.bool).repeat(2, 2)
    return scores[torch.arange(2 * n), torch.arange(2 * n).roll(n)], scores[others].view(2 * n, 2 * n - 2)


def debiased(positive: Tensor, mean: Tensor, negatives: int, temperature: float) -> Tensor:
    """The loss by `similarities` of positives and the mean exponential of negatives, less its false negatives."""
    positive = positive.exp()
    true = (mean - TAU_PLUS * positive) / (1 - TAU_PLUS)
    # The floor is that of the least similarity, −1, and these are less by 1 / temperature.
    true = true.clamp(min=math.exp(-2 / temperature))
    return torch.log1p(negatives * true / positive).mean()


LOSSES: dict[str, Loss] = {"info_nce": info_nce, "nt_xent": nt_xent, "dcl": dcl, "hcl": hcl}
