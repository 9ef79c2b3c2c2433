"""The rows that ``prosampler.mining`` gives, in each of its formats."""

from typing import Any

import numpy as np
import pyarrow as pa

from .candidates import ROWS_AT_ONCE, Array, Candidates, Texts


class Rows:
    """The rows of the result, in one of its formats. Each method gives columns, and how much they lack."""

    def __init__(
        self, found: Candidates, ids: Array, scores: Array, texts: Texts, names: tuple[str, str], output_scores: bool
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
