"""What may be a negative of each anchor of a data set, and how similar it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from .handle import RefreshHandle, float32
from .search import search

Array = np.ndarray[Any, Any]

ROWS_AT_ONCE = 16_384
"""How many rows are worked on at a time where each takes much memory."""


class Embeddings(NamedTuple):
    """Vectors of a data set's texts, in place of a model that makes them; arrays or tensors of any length.

    Args:
        anchors, positives: ``[rows, dimension]``, one for each row. Of rows with the same text, the first counts.
        corpus: ``[texts, dimension]``, one for each text of the argument ``corpus``.
    """

    anchors: Any
    positives: Any
    corpus: Any = None


@dataclass
class Texts:
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
    def of(cls, dataset: Dataset, anchor: str, positive: str, corpus: Sequence[str] | None) -> "Texts":
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
class Candidates:
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

    def rescore(self, cross_encoder: Any, texts: Texts, batch_size: int) -> None:
        """Replaces all scores by those of a cross encoder."""
        queries, places = np.nonzero(self.ids >= 0)
        documents = self.ids[queries, places]
        self.scores[queries, places] = _predicted(cross_encoder, texts, self.anchors[queries], documents, batch_size)
        anchors = self.anchors[self.pair_queries]
        self.pair_scores = _predicted(cross_encoder, texts, anchors, self.pair_documents, batch_size)

    def keep_out(self, keys: Array, texts: Texts) -> None:
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


def _large(column: pa.ChunkedArray, name: str) -> pa.Array:
    """A column of texts in one piece."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise ValueError(f"{name!r} holds {column.type}; hard negatives are mined among texts")
    if column.null_count:
        raise ValueError(f"{name!r} has {column.null_count} nulls; filter them out first")
    return pa.concat_arrays([pa.array([], pa.large_string()), *column.cast(pa.large_string()).chunks])


def given(vectors: Embeddings, texts: Texts) -> tuple[Array, Array]:
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


def encoded(
    model: Any,
    texts: Texts,
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


def by_search(texts: Texts, anchors: Array, documents: Array, range_max: int) -> Candidates:
    """The nearest documents of each anchor, so many that its positives and copies can be left out."""
    k = range_max + texts.max_positives + int(len(texts.copies) > 0)
    ids, scores = search(anchors, documents, k)
    # Distinct pairs, by anchors and then in the order of their rows.
    _, rows = np.unique(texts.positives, return_index=True)
    rows = rows[np.lexsort((rows, texts.anchor_of[rows]))]
    queries, positives = texts.anchor_of[rows], texts.positive_of[rows]
    return Candidates(
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


def from_run(handle: RefreshHandle, texts: Texts, needs_pairs: bool) -> Candidates:
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
    return Candidates(texts.anchor_of, ids, scores, own, texts.positive_of, pair_scores)


def _predicted(cross_encoder: Any, texts: Texts, anchors: Array, documents: Array, batch_size: int) -> Array:
    """The scores of pairs by a cross encoder."""
    scores = np.empty(len(anchors), np.float32)
    for first in range(0, len(anchors), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        columns = texts.anchors.take(pa.array(anchors[some])), texts.documents.take(pa.array(documents[some]))
        pairs = list(zip(*(column.to_pylist() for column in columns), strict=True))
        scores[some] = float32(cross_encoder.predict(pairs, batch_size=batch_size))
    return scores
