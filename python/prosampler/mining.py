"""Explicit hard negatives for a data set of pairs, as ``sentence_transformers.util.mine_hard_negatives`` makes them.

Everything is done for all rows at once: texts are numbered, candidates are a matrix ``[queries, k]`` of these numbers
beside one of scores, most similar first, and what may not be a negative gets the score −∞.
"""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from .candidates import Array, Candidates, Embeddings, Texts, by_search, encoded, from_run, given
from .handle import HasHandle
from .mined_rows import Rows

__all__ = ["Embeddings", "mine_hard_negatives"]

FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


def mine_hard_negatives(
    dataset: Dataset,
    model: Any | Embeddings | HasHandle,
    anchor_column_name: str | None = None,
    positive_column_name: str | None = None,
    corpus: Sequence[str] | None = None,
    cross_encoder: Any | None = None,
    range_min: int = 0,
    range_max: int | None = None,
    max_score: float | None = None,
    min_score: float | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = None,
    num_negatives: int = 3,
    sampling_strategy: str = "top",
    query_prompt_name: str | None = None,
    query_prompt: str | None = None,
    corpus_prompt_name: str | None = None,
    corpus_prompt: str | None = None,
    include_positives: bool = False,
    output_format: str = "triplet",
    output_scores: bool = False,
    batch_size: int = 32,
    verbose: bool = True,
) -> Dataset:
    """Adds hard negatives to pairs: the arguments and the result of ``sentence_transformers.util.mine_hard_negatives``.

    The negatives of an anchor are texts of the corpus that are similar to it. Rows with the same anchor are one query
    with several positives. What is left of the candidates after positives, margins and bounds is ranked; the ranks
    from ``range_min`` to below ``range_max`` count, and ``num_negatives`` of them are taken. Two things differ: a text
    that equals its anchor is no negative, and a column that does not exist is an error.

    Args:
        dataset: pairs of texts.
        model: where similarities come from.

            - A ``SentenceTransformer``, or whatever has ``encode``: each text is embedded once, and each anchor is
              compared with the whole corpus, exactly, by ``prosampler.search``.
            - ``Embeddings``: the same with vectors that are there already.
            - A ``Stream``, a sampler or ``HardNegatives``: nothing is embedded. The candidates of a row are its
              ``graph.neighbors`` in the run, whose source has the rows of ``dataset`` in this order. Each row is a
              query of its own. Margins need a run of ``[pairs]``.
        anchor_column_name, positive_column_name: by default the first two columns.
        corpus: more texts that can be negatives, beside the positives; not with a run.
        cross_encoder: scores candidates and positives again by its ``predict``, if there is a margin or a bound.
        range_min, range_max: ranks, from 0; ``range_max`` is not among them. By default it is ``range_min`` +
            ``num_negatives`` + the most positives of an anchor, with 10 times as many negatives if margins or
            ``max_score`` may leave some out; with a run, all neighbors.
        max_score, min_score: the scores of a negative.
        absolute_margin: a negative's score is at least this much below the lowest of its anchor's positives.
        relative_margin: the same as a share of that positive's score: 0.05 for the 95 % of NV-Retriever
            (arXiv 2407.15831).
        num_negatives: negatives of an anchor.
        sampling_strategy: ``"top"``, or ``"random"`` ones of those that count; ``random.seed`` makes it repeatable.
        query_prompt_name, query_prompt, corpus_prompt_name, corpus_prompt: what a model puts before the texts.
        include_positives: positives are candidates too, for rankings to evaluate by, and the format is ``"n-tuple"``.
        output_format: ``"triplet"`` has a row for each negative, ``"n-tuple"`` one with columns ``negative_1``, … if
            there are enough, ``"labeled-pair"`` a text and its ``label`` (1 for a positive), ``"labeled-list"`` the
            same as lists.
        output_scores: adds ``scores``, the positive's first; labels give way to them.
        batch_size: texts that a model takes at a time.
        verbose: prints how many candidates were left out, and why.

    Raises:
        ValueError: arguments contradict each other, or a column cannot be used.
        ArgumentError: shapes do not fit, or the data set has more rows than the run.
    """
    if output_format == "n-tuple-scores":
        output_format, output_scores = "n-tuple", True
    if output_format not in FORMATS:
        raise ValueError(f"output_format is {output_format!r}; give one of {', '.join(map(repr, FORMATS))}")
    if sampling_strategy not in ("top", "random"):
        raise ValueError(f"sampling_strategy is {sampling_strategy!r}; give 'top' or 'random'")
    if num_negatives < 1:
        raise ValueError(f"num_negatives is {num_negatives}; give 1 or more")
    if range_min < 0:
        raise ValueError(f"range_min is {range_min}; ranks count from 0")
    if include_positives:
        output_format = "n-tuple"
    names = _names(dataset, anchor_column_name, positive_column_name)
    texts = Texts.of(dataset, *names, corpus)
    has_margin = absolute_margin is not None or relative_margin is not None
    has_bound = has_margin or max_score is not None or min_score is not None

    if not isinstance(model, Embeddings) and hasattr(model, "handle"):
        in_vain = {"corpus": corpus is not None, "include_positives": include_positives}
        for name, is_given in in_vain.items():
            if is_given:
                raise ValueError(f"{name} needs a model or Embeddings: a run knows the neighbors of its own rows alone")
        found = from_run(model.handle, texts, (has_margin or output_scores) and cross_encoder is None)
        range_max = found.ids.shape[1] if range_max is None else range_max
        _check_ranks(range_min, range_max, num_negatives)
    else:
        if range_max is None:
            may_lose = has_margin or max_score is not None or (cross_encoder is not None and min_score is not None)
            range_max = range_min + num_negatives * (10 if may_lose else 1) + texts.max_positives
            if verbose:
                print(f"range_max is {range_max}, as it was not given")
        _check_ranks(range_min, range_max, num_negatives)
        if isinstance(model, Embeddings):
            vectors = given(model, texts)
        else:
            prompts = (query_prompt_name, query_prompt), (corpus_prompt_name, corpus_prompt)
            vectors = encoded(model, texts, *prompts, batch_size, verbose)
        found = by_search(texts, *vectors, range_max)

    if cross_encoder is not None and has_bound:
        found.rescore(cross_encoder, texts, batch_size)
    found.keep_out(texts.copies if include_positives else np.union1d(texts.positives, texts.copies), texts)
    left_out = found.bound(absolute_margin, relative_margin, max_score, min_score)
    negatives = _choose(found, range_min, range_max, num_negatives, sampling_strategy)
    rows = Rows(found, *negatives, texts, names, output_scores)
    columns, missing = getattr(rows, output_format.replace("-", "_"))()
    if verbose:
        for name, count in left_out.items():
            print(f"{count:,} candidates left out by {name}")
        if missing:
            print(f"{missing:,} rows or negatives are missing, since too few candidates remain; raise range_max")
    return Dataset(pa.table(columns))


def _names(dataset: Dataset, anchor: str | None, positive: str | None) -> tuple[str, str]:
    """The columns of anchors and positives."""
    names = dataset.column_names
    for name in (anchor, positive):
        if name is not None and name not in names:
            raise ValueError(f"column {name!r} not found; there are {', '.join(names)}")
    anchor = anchor or next((name for name in names if name != positive), None)
    positive = positive or next((name for name in names if name != anchor), None)
    if anchor is None or positive is None or anchor == positive:
        raise ValueError(f"the data set has the columns {names}; it needs an anchor and a positive")
    return anchor, positive


def _check_ranks(range_min: int, range_max: int, num_negatives: int) -> None:
    if num_negatives > range_max - range_min:
        raise ValueError(
            f"there are {max(range_max - range_min, 0)} ranks from range_min {range_min} to range_max {range_max}, too "
            f"few for {num_negatives} negatives; raise range_max, or lower num_negatives or range_min"
        )


def _choose(
    found: Candidates, range_min: int, range_max: int, num_negatives: int, sampling_strategy: str
) -> tuple[Array, Array]:
    """The negatives of each query and their scores [queries × negatives], −∞ where there are too few."""
    order = np.argsort(-found.scores, axis=1, kind="stable")[:, range_min:range_max]
    ids, scores = np.take_along_axis(found.ids, order, axis=1), np.take_along_axis(found.scores, order, axis=1)
    if (missing := num_negatives - ids.shape[1]) > 0:
        ids = np.pad(ids, ((0, 0), (0, missing)), constant_values=-1)
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
    if sampling_strategy == "random":
        # The candidates with the smallest of random numbers; those that are none come last.
        numbers = np.random.default_rng(random.getrandbits(64)).random(ids.shape)
        numbers[scores == -np.inf] = 2
        drawn = np.sort(np.argsort(numbers, axis=1)[:, :num_negatives], axis=1)
        ids, scores = np.take_along_axis(ids, drawn, axis=1), np.take_along_axis(scores, drawn, axis=1)
    return ids[:, :num_negatives], scores[:, :num_negatives]
