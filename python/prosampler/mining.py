"""Explicit hard negatives for a data set of pairs, as ``sentence_transformers.util.mine_hard_negatives`` makes them.

Everything is done for all rows at once: texts are numbered, candidates are a matrix ``[queries, k]`` of these numbers
beside one of scores, most similar first, and what may not be a negative gets the score −∞.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from .handle import HasHandle, RefreshHandle, float32
from .search import search

Array = np.ndarray[Any, Any]

FORMATS = ("triplet", "n-tuple", "labeled-pair", "labeled-list")


class Embeddings(NamedTuple):
    """Vectors of a data set's texts, in place of a model that makes them; arrays or tensors of any length.

    Args:
        anchors, positives: ``[rows, dimension]``, one for each row. Of rows with the same text, the first counts.
        corpus: ``[texts, dimension]``, one for each text of the argument ``corpus``.
    """

    anchors: Any
    positives: Any
    corpus: Any = None


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
    texts = _Texts.of(dataset, *names, corpus)
    has_margin = absolute_margin is not None or relative_margin is not None
    has_bound = has_margin or max_score is not None or min_score is not None

    if not isinstance(model, Embeddings) and hasattr(model, "handle"):
        given = {"corpus": corpus is not None, "include_positives": include_positives}
        for name, is_given in given.items():
            if is_given:
                raise ValueError(f"{name} needs a model or Embeddings: a run knows the neighbors of its own rows alone")
        found = _from_run(model.handle, texts, (has_margin or output_scores) and cross_encoder is None)
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
            vectors = _given(model, texts)
        else:
            prompts = (query_prompt_name, query_prompt), (corpus_prompt_name, corpus_prompt)
            vectors = _encoded(model, texts, *prompts, batch_size, verbose)
        found = _by_search(texts, *vectors, range_max)

    if cross_encoder is not None and has_bound:
        found.rescore(cross_encoder, texts, batch_size)
    found.keep_out(texts.copies if include_positives else np.union1d(texts.positives, texts.copies), texts)
    left_out = found.bound(absolute_margin, relative_margin, max_score, min_score)
    negatives = _choose(found, range_min, range_max, num_negatives, sampling_strategy)
    rows = _Rows(found, *negatives, texts, names, output_scores)
    columns, missing = getattr(rows, output_format.replace("-", "_"))()
    if verbose:
        for name, count in left_out.items():
            print(f"{count:,} candidates left out by {name}")
        if missing:
            print(f"{missing:,} rows or negatives are missing, since too few candidates remain; raise range_max")
    return Dataset(pa.table(columns))


@dataclass
class _Texts:
    """The texts of a data set, each once, in the order in which they first appear."""

    #: Distinct anchors, and distinct texts of corpus and positives.
    anchors: pa.Array
    documents: pa.Array
    #: The anchor of each row, and the document that is its positive.
    anchor_of: Array
    positive_of: Array
    #: The document of each text of the corpus.
    corpus_of: Array

    @classmethod
    def of(cls, dataset: Dataset, anchor: str, positive: str, corpus: Sequence[str] | None) -> "_Texts":
        if len(dataset) == 0:
            raise ValueError("the data set is empty; give at least one pair")
        columns = dataset.select_columns([anchor, positive]).with_format("arrow")[:]
        anchors, positives = _large(columns.column(anchor), anchor), _large(columns.column(positive), positive)
        others = _large(pa.chunked_array([pa.array(list(corpus or []), pa.large_string())]), "corpus")
        by_anchor = pc.dictionary_encode(anchors)
        by_document = pc.dictionary_encode(pa.concat_arrays([others, positives]))
        documents = by_document.indices.to_numpy().astype(np.int64)
        return cls(
            anchors=by_anchor.dictionary,
            documents=by_document.dictionary,
            anchor_of=by_anchor.indices.to_numpy().astype(np.int64),
            positive_of=documents[len(others) :],
            corpus_of=documents[: len(others)],
        )

    @property
    def max_positives(self) -> int:
        """The most rows with one anchor."""
        return int(np.bincount(self.anchor_of).max())

    def key(self, anchor: Array, document: Array) -> Array:
        """A number for a pair of an anchor and a document."""
        return anchor * len(self.documents) + document

    @property
    def positives(self) -> Array:
        """The pairs of the data set, as keys."""
        return self.key(self.anchor_of, self.positive_of)

    @property
    def copies(self) -> Array:
        """The pairs of an anchor and a document of the same text, as keys."""
        copies = pc.index_in(self.anchors, self.documents)
        anchors = np.flatnonzero(copies.is_valid().to_numpy(zero_copy_only=False))
        return self.key(anchors, copies.drop_null().to_numpy().astype(np.int64))


@dataclass
class _Candidates:
    """What may be a negative of each query."""

    #: The anchor of each query.
    anchors: Array
    #: Documents [queries, k], −1 for none, and their scores, −∞ for what is no negative.
    ids: Array
    scores: Array
    #: The query and the document of each pair of the result, by queries; their scores, if they are needed.
    pair_queries: Array
    pair_documents: Array
    pair_scores: Array | None

    def rescore(self, cross_encoder: Any, texts: _Texts, batch_size: int) -> None:
        """Replaces all scores by those of a cross encoder."""
        queries, places = np.nonzero(self.ids >= 0)
        documents = self.ids[queries, places]
        self.scores[queries, places] = _predicted(cross_encoder, texts, self.anchors[queries], documents, batch_size)
        anchors = self.anchors[self.pair_queries]
        self.pair_scores = _predicted(cross_encoder, texts, anchors, self.pair_documents, batch_size)

    def keep_out(self, keys: Array, texts: _Texts) -> None:
        """Leaves out pairs of these keys."""
        own = texts.key(self.anchors[:, None], self.ids)
        self.scores[np.isin(own, keys) | (self.ids < 0)] = -np.inf

    def bound(
        self,
        absolute_margin: float | None,
        relative_margin: float | None,
        max_score: float | None,
        min_score: float | None,
    ) -> dict[str, int]:
        """Leaves out what lies outside margins and bounds, and counts it."""
        left_out = {}

        def leave_out(name: str, refused: Array) -> None:
            refused &= self.scores > -np.inf
            self.scores[refused] = -np.inf
            left_out[name] = int(refused.sum())

        if absolute_margin is not None or relative_margin is not None:
            assert self.pair_scores is not None
            # Of several positives, the one with the lowest score decides.
            lowest = np.full(self.anchors.max() + 1, np.inf, np.float32)
            np.minimum.at(lowest, self.anchors[self.pair_queries], self.pair_scores)
            lowest = lowest[self.anchors][:, None]
            if absolute_margin is not None:
                leave_out("absolute_margin", self.scores + absolute_margin > lowest)
            if relative_margin is not None:
                leave_out("relative_margin", self.scores > lowest - np.abs(lowest) * relative_margin)
        if max_score is not None:
            leave_out("max_score", self.scores > max_score)
        if min_score is not None:
            leave_out("min_score", self.scores < min_score)
        return left_out


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


def _large(column: pa.ChunkedArray, name: str) -> pa.Array:
    """A column of texts in one piece."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"{name!r} holds {column.type}; hard negatives are mined among texts")
    if column.null_count:
        raise ValueError(f"{name!r} has {column.null_count} nulls; filter them out first")
    return pa.concat_arrays([pa.array([], pa.large_string()), *column.cast(pa.large_string()).chunks])


def _check_ranks(range_min: int, range_max: int, num_negatives: int) -> None:
    if num_negatives > range_max - range_min:
        raise ValueError(
            f"there are {max(range_max - range_min, 0)} ranks from range_min {range_min} to range_max {range_max}, too "
            f"few for {num_negatives} negatives; raise range_max, or lower num_negatives or range_min"
        )


def _given(vectors: Embeddings, texts: _Texts) -> tuple[Array, Array]:
    """The vectors of distinct anchors and documents, of those of all rows."""
    anchors, positives = float32(vectors.anchors), float32(vectors.positives)
    corpus = positives[:0] if vectors.corpus is None else float32(vectors.corpus)
    for name, found, rows in (
        ("anchors", anchors, len(texts.anchor_of)),
        ("positives", positives, len(texts.positive_of)),
        ("corpus", corpus, len(texts.corpus_of)),
    ):
        if found.ndim != 2 or len(found) != rows:
            raise ValueError(f"Embeddings.{name} has the shape {found.shape}; give [{rows}, dimension]")
    if corpus.shape[1] != positives.shape[1]:
        raise ValueError(f"vectors have {positives.shape[1]} numbers, those of the corpus have {corpus.shape[1]}")
    documents = np.concatenate([corpus, positives]) if len(corpus) else positives
    return (
        _firsts(anchors, texts.anchor_of, len(texts.anchors)),
        _firsts(documents, np.concatenate([texts.corpus_of, texts.positive_of]), len(texts.documents)),
    )


def _firsts(vectors: Array, text_of: Array, count: int) -> Array:
    """The vector of the first row of each text."""
    if len(text_of) == count:
        return vectors
    return vectors[np.unique(text_of, return_index=True)[1]]


def _encoded(
    model: Any,
    texts: _Texts,
    query_prompt: tuple[str | None, str | None],
    corpus_prompt: tuple[str | None, str | None],
    batch_size: int,
    verbose: bool,
) -> tuple[Array, Array]:
    """The vectors of distinct anchors and documents, by a model."""
    kind = getattr(model, "similarity_fn_name", None) or "cosine"
    if kind not in ("cosine", "dot"):
        raise ValueError(f"the model's similarity_fn_name is {str(kind)!r}; candidates are found by 'cosine' or 'dot'")

    def encode(method: str, column: pa.Array, prompt: tuple[str | None, str | None]) -> Array:
        return float32(
            getattr(model, method, model.encode)(
                column.to_pylist(),
                batch_size=batch_size,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=verbose,
                prompt_name=prompt[0],
                prompt=prompt[1],
            )
        )

    documents = encode("encode_document", texts.documents, corpus_prompt)
    return encode("encode_query", texts.anchors, query_prompt), documents


def _by_search(texts: _Texts, anchors: Array, documents: Array, range_max: int) -> _Candidates:
    """The nearest documents of each anchor, so many that its positives and copies can be left out."""
    k = range_max + texts.max_positives + int(len(texts.copies) > 0)
    ids, scores = search(anchors, documents, k)
    # Distinct pairs, by anchors and then in the order of their rows.
    _, rows = np.unique(texts.positives, return_index=True)
    rows = rows[np.lexsort((rows, texts.anchor_of[rows]))]
    queries, positives = texts.anchor_of[rows], texts.positive_of[rows]
    return _Candidates(
        anchors=np.arange(len(texts.anchors)),
        ids=ids.astype(np.int64),
        scores=scores,
        pair_queries=queries,
        pair_documents=positives,
        pair_scores=_cosines(anchors, documents, queries, positives),
    )


def _cosines(a: Array, b: Array, a_rows: Array, b_rows: Array) -> Array:
    """The cosine of each pair of rows."""
    cosines = np.empty(len(a_rows), np.float32)
    for first in range(0, len(a_rows), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        x, y = a[a_rows[some]], b[b_rows[some]]
        dots, lengths = np.einsum("ij,ij->i", x, y), np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        cosines[some] = dots / lengths
    return cosines


def _from_run(handle: RefreshHandle, texts: _Texts, needs_pairs: bool) -> _Candidates:
    """The neighbors of each row in the graph of a run, and the similarity of its own pair."""
    rows = len(texts.anchor_of)
    neighbors = [handle.neighbors(row) for row in range(rows)]
    samples = np.array([[sample for sample, _ in found] for found in neighbors], np.int64)
    if samples.max(initial=0) >= rows:
        raise ValueError(f"the run has a sample {samples.max()}, the data set {rows} rows; give all rows of its source")
    ids = texts.positive_of[samples]
    scores = np.array([[similarity for _, similarity in found] for found in neighbors], np.float32)
    # Of neighbors with the same text, the nearest counts.
    order = np.argsort(ids, axis=1, kind="stable")
    ordered = np.take_along_axis(ids, order, axis=1)
    repeats = np.zeros(ids.shape, bool)
    np.put_along_axis(repeats, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    ids[repeats] = -1
    pair_scores = None
    if needs_pairs:
        found = [handle.pair_similarity(row) for row in range(rows)]
        if None in found:
            raise ValueError("rows of the run are no pairs; name pairs.anchor and pairs.positive, or give a model")
        pair_scores = np.array(found, np.float32)
    own = np.arange(rows)
    return _Candidates(texts.anchor_of, ids, scores, own, texts.positive_of, pair_scores)


def _predicted(cross_encoder: Any, texts: _Texts, anchors: Array, documents: Array, batch_size: int) -> Array:
    """The scores of pairs by a cross encoder."""
    scores = np.empty(len(anchors), np.float32)
    for first in range(0, len(anchors), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        columns = texts.anchors.take(pa.array(anchors[some])), texts.documents.take(pa.array(documents[some]))
        pairs = list(zip(*(column.to_pylist() for column in columns), strict=True))
        scores[some] = float32(cross_encoder.predict(pairs, batch_size=batch_size))
    return scores


def _choose(
    found: _Candidates, range_min: int, range_max: int, num_negatives: int, sampling_strategy: str
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


class _Rows:
    """The rows of the result, in one of its formats. Each method gives columns, and how much they lack."""

    def __init__(
        self, found: _Candidates, ids: Array, scores: Array, texts: _Texts, names: tuple[str, str], output_scores: bool
    ) -> None:
        self.texts, self.names, self.output_scores = texts, names, output_scores
        self.anchors = found.anchors
        #: The negatives of each query.
        self.query_ids, self.query_scores = ids, scores
        #: The same for each pair, with the positive first.
        self.queries, positives = found.pair_queries, found.pair_documents
        positive_scores = np.zeros(len(positives), np.float32) if found.pair_scores is None else found.pair_scores
        self.ids = np.column_stack([positives, ids[self.queries]])
        self.scores = np.column_stack([positive_scores, scores[self.queries]])
        self.is_found = self.scores[:, 1:] > -np.inf

    def triplet(self) -> tuple[dict[str, Any], int]:
        pairs, places = np.nonzero(self.is_found)
        columns = self._columns(self.queries[pairs], self._texts(self.ids[pairs, 0]))
        columns["negative"] = self._texts(self.ids[pairs, places + 1])
        if self.output_scores:
            both = np.column_stack([self.scores[pairs, 0], self.scores[pairs, places + 1]])
            columns["scores"] = _lists(_doubles(both.reshape(-1)), np.full(len(pairs), 2))
        return columns, self.is_found.size - len(pairs)

    def n_tuple(self) -> tuple[dict[str, Any], int]:
        pairs = np.flatnonzero(self.is_found.all(axis=1))
        columns = self._columns(self.queries[pairs], self._texts(self.ids[pairs, 0]))
        for place in range(1, self.ids.shape[1]):
            columns[f"negative_{place}"] = self._texts(self.ids[pairs, place])
        if self.output_scores:
            scores = self.scores[pairs]
            columns["scores"] = _lists(_doubles(scores.reshape(-1)), np.full(len(pairs), scores.shape[1]))
        return columns, len(self.queries) - len(pairs)

    def labeled_list(self) -> tuple[dict[str, Any], int]:
        pairs = np.flatnonzero(self.is_found.any(axis=1))
        kept = np.column_stack([np.ones(len(pairs), bool), self.is_found[pairs]])
        lengths = kept.sum(axis=1)
        documents = _lists(self._texts(self.ids[pairs][kept]).combine_chunks(), lengths)
        columns = self._columns(self.queries[pairs], documents)
        if self.output_scores:
            columns["scores"] = _lists(_doubles(self.scores[pairs][kept]), lengths)
        else:
            columns["labels"] = _lists(pa.array(_labels(kept.shape)[kept]), lengths)
        return columns, len(self.queries) - len(pairs)

    def labeled_pair(self) -> tuple[dict[str, Any], int]:
        # The positives of a query, then its negatives.
        owners, places = np.nonzero(self.query_scores > -np.inf)
        queries = np.concatenate([self.queries, owners])
        labels = np.concatenate([np.ones(len(self.queries), np.int64), np.zeros(len(owners), np.int64)])
        order = np.lexsort((-labels, queries))
        documents = np.concatenate([self.ids[:, 0], self.query_ids[owners, places]])[order]
        columns = self._columns(queries[order], self._texts(documents))
        if self.output_scores:
            scores = np.concatenate([self.scores[:, 0], self.query_scores[owners, places]])
            columns["score"] = _doubles(scores[order])
        else:
            columns["label"] = pa.array(labels[order])
        return columns, self.query_ids.size - len(owners)

    def _columns(self, queries: Array, documents: Any) -> dict[str, Any]:
        """The first two columns."""
        anchor, positive = self.names
        return {anchor: _taken(self.texts.anchors, self.anchors[queries]), positive: documents}

    def _texts(self, documents: Array) -> pa.ChunkedArray:
        return _taken(self.texts.documents, documents)


def _labels(shape: tuple[int, ...]) -> Array:
    """1 for the positive, which comes first, and 0 for negatives."""
    labels = np.zeros(shape, np.int64)
    labels[:, 0] = 1
    return labels


def _doubles(scores: Array) -> pa.Array:
    return pa.array(scores.astype(np.float64))


def _lists(values: pa.Array, lengths: Array) -> pa.Array:
    """Lists of these lengths, one after another."""
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)


def _taken(texts: pa.Array, numbers: Array) -> pa.ChunkedArray:
    """The texts of these numbers, in pieces that stay far from the 2 GB of a column of short texts."""
    pieces = [numbers[first : first + ROWS_AT_ONCE] for first in range(0, len(numbers), ROWS_AT_ONCE)]
    taken = [texts.take(pa.array(piece)).cast(pa.string()) for piece in pieces]
    return pa.chunked_array(taken, pa.string())


ROWS_AT_ONCE = 16_384
"""How many rows are worked on at a time where each takes much memory."""
