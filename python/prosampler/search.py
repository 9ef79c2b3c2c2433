"""The nearest vectors of a corpus, exactly.

>>> ids, similarities = search(queries, corpus, 10)
"""

from typing import Any

import numpy as np

from ._prosampler import Corpus
from .errors import ArgumentError
from .handle import float32

Ids = np.ndarray[Any, np.dtype[np.uint32]]
Similarities = np.ndarray[Any, np.dtype[np.float32]]

QUERIES_A_THREAD = 4096
"""How many queries each thread takes between two looks at the signals."""


def search(queries: Any, corpus: Any, k: int) -> tuple[Ids, Similarities]:
    """Finds the ``k`` vectors of a corpus with the largest cosine to each query, most similar first.

    It is a blocked matrix product on all cores, of queries × corpus × dimension multiplications, in i8 as far as that
    decides and in f32 beyond. Beside the result it keeps a copy of the corpus, and of some thousand queries a thread.

    Args:
        queries: ``[queries, dimension]``, as an array or a tensor.
        corpus: ``[rows, dimension]``.
        k: how many; with a smaller corpus, as many as it has.

    Returns:
        The rows of the corpus, ``[queries, k]``, and their cosines.

    Raises:
        ArgumentError: the shapes do not fit, or ``k`` is negative.
        EncodeError: a vector is not finite, or has no direction.
    """
    queries, corpus = float32(queries), float32(corpus)
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise ArgumentError(
            f"the queries have the shape {queries.shape}, the corpus has {corpus.shape}; give [queries, dimension] and "
            "[rows, dimension]"
        )
    if k < 0:
        raise ArgumentError(f"k is {k}; give 0 or more")
    shape = (len(queries), min(k, len(corpus)))
    ids, similarities = np.empty(shape, np.uint32), np.empty(shape, np.float32)
    if ids.size:
        table = Corpus(corpus)
        step = QUERIES_A_THREAD * table.threads
        for first in range(0, len(queries), step):
            some = slice(first, first + step)
            found = table.search(queries[some], k)
            ids[some], similarities[some] = (np.from_dlpack(column) for column in found)
    return ids, similarities
