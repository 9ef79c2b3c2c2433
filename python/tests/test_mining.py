"""``mine_hard_negatives`` against that of sentence-transformers: the same rows, for each argument and format."""

import random
from itertools import groupby
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import SMALL
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives as theirs

from prosampler import ArgumentError, EncodeError, Pipeline
from prosampler.mining import Embeddings, mine_hard_negatives
from prosampler.search import search

DIMENSION = 24


def clustered(rows, seed, dimension=DIMENSION):
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(8, dimension))
    return (centers[generator.integers(0, 8, rows)] + 0.6 * generator.normal(size=(rows, dimension))).astype(np.float32)


class Model:
    """Gives vectors that are there, as a SentenceTransformer does."""

    device = torch.device("cpu")
    similarity_fn_name = "cosine"

    def __init__(self, vectors, prompt=None):
        self.vectors, self.prompt = vectors, prompt
        self.prompts = []

    def encode(self, texts, *, normalize_embeddings, prompt_name=None, prompt=None, **_):
        assert normalize_embeddings and len(texts) == len({*texts})
        self.prompts.append((prompt_name, prompt))
        made = np.stack([self.vectors[text] for text in texts])
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    encode_query = encode_document = encode

    def get_embedding_dimension(self):
        return DIMENSION

    def similarity(self, a, b):
        return torch.as_tensor(a) @ torch.as_tensor(b).T

    def similarity_pairwise(self, a, b):
        return (torch.as_tensor(a) * torch.as_tensor(b)).sum(1)


class CrossEncoder:
    """Scores a pair by its texts alone."""

    def predict(self, pairs, batch_size=32, convert_to_tensor=False, **_):
        scores = np.array([crc32(repr(pair).encode()) % 2**24 / 2**24 for pair in pairs], np.float32)
        return torch.from_numpy(scores) if convert_to_tensor else scores


@pytest.fixture(scope="module")
def data():
    """300 pairs of 220 anchors, some with several positives, some pairs and positives more than once; a corpus."""
    generator = random.Random(7)
    pairs = [(f"anchor {i % 220}", f"positive {i if i < 270 else i - 40}") for i in range(300)]
    pairs += [pairs[3], pairs[250], ("anchor 5", "positive 9")]
    generator.shuffle(pairs)
    corpus = [f"document {i}" for i in range(150)] + ["positive 4", "document 7"]
    distinct = list(dict.fromkeys([text for pair in pairs for text in pair] + corpus))
    vectors = dict(zip(distinct, clustered(len(distinct), 1), strict=True))
    # Positives are near their anchors.
    for anchor, positive in pairs:
        vectors[positive] = (vectors[positive] + vectors[anchor]).astype(np.float32)
    anchors, positives = zip(*pairs, strict=True)
    return Dataset.from_dict({"query": anchors, "answer": positives}), corpus, vectors


def same(ours, others):
    assert ours.column_names == others.column_names
    assert len(ours) == len(others)
    for name in ours.column_names:
        found, expected = ours[name][:], others[name][:]
        if name in ("score", "scores"):
            flat = [x for row in found for x in row] if name == "scores" else found
            expected = [x for row in expected for x in row] if name == "scores" else expected
            assert flat == pytest.approx(expected, abs=2e-6)
        else:
            assert found == expected, name
    assert ours.features == others.features


OPTIONS = [
    {},
    {"num_negatives": 1},
    {"num_negatives": 7, "range_max": 9},
    {"range_min": 2},
    {"range_min": 3, "range_max": 12},
    {"max_score": 0.7},
    {"min_score": 0.55},
    {"max_score": 0.8, "min_score": 0.3, "range_min": 1},
    {"absolute_margin": 0.0},
    {"absolute_margin": 0.1, "range_max": 40},
    {"relative_margin": 0.05},
    {"relative_margin": 0.3, "absolute_margin": 0.05, "max_score": 0.6, "num_negatives": 4},
    {"range_max": 1000},
    {"range_max": 30, "range_min": 25, "max_score": 0.75},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("output_format", ["triplet", "n-tuple", "labeled-pair", "labeled-list"])
@pytest.mark.parametrize("with_corpus", [False, True], ids=["pairs", "corpus"])
def test_the_rows_are_theirs(data, options, output_format, with_corpus):
    dataset, corpus, vectors = data
    options = {**options, "corpus": corpus if with_corpus else None, "output_format": output_format}
    for output_scores in (False, True):
        arguments = {**options, "output_scores": output_scores, "verbose": False}
        expected = theirs(dataset, Model(vectors), **arguments)
        same(mine_hard_negatives(dataset, Model(vectors), **arguments), expected)
        given = Embeddings(
            *([vectors[text] for text in column] for column in (dataset["query"], dataset["answer"])),
            torch.from_numpy(np.stack([vectors[text] for text in corpus])) if with_corpus else None,
        )
        same(mine_hard_negatives(dataset, given, **arguments), expected)


@pytest.mark.parametrize("options", [{"max_score": 0.9}, {"min_score": 0.2}, {"relative_margin": 0.2}, {}], ids=str)
@pytest.mark.parametrize("output_format", ["triplet", "labeled-list"])
def test_a_cross_encoder_scores_again(data, options, output_format):
    dataset, corpus, vectors = data
    arguments = {**options, "output_format": output_format, "output_scores": True, "corpus": corpus, "verbose": False}
    expected = theirs(dataset, Model(vectors), cross_encoder=CrossEncoder(), **arguments)
    same(mine_hard_negatives(dataset, Model(vectors), cross_encoder=CrossEncoder(), **arguments), expected)


def test_positives_can_be_ranked_too(data):
    dataset, corpus, vectors = data
    arguments = {"include_positives": True, "num_negatives": 20, "corpus": corpus, "verbose": False}
    expected = theirs(dataset, Model(vectors), **arguments)
    same(mine_hard_negatives(dataset, Model(vectors), **arguments), expected)


def test_columns_and_old_names_as_theirs(data):
    dataset, _, vectors = data
    dataset = dataset.add_column("row", list(range(len(dataset)))).select_columns(["row", "answer", "query"])
    names = {"anchor_column_name": "query", "positive_column_name": "answer", "verbose": False}
    chosen = dataset.select(range(150, 20, -1))
    same(mine_hard_negatives(chosen, Model(vectors), **names), theirs(chosen, Model(vectors), **names))
    scored = {**names, "output_format": "n-tuple-scores"}
    same(mine_hard_negatives(dataset, Model(vectors), **scored), theirs(dataset, Model(vectors), **scored))
    model = Model(vectors)
    mine_hard_negatives(dataset, model, **names, query_prompt_name="query", corpus_prompt="passage: ")
    assert model.prompts == [(None, "passage: "), ("query", None)]


@pytest.mark.parametrize("bounds", [{}, {"max_score": 0.7}, {"relative_margin": 0.1}], ids=str)
def test_random_negatives_are_some_of_those_that_count(data, bounds):
    dataset, corpus, vectors = data
    arguments = {"range_min": 2, "range_max": 14, "corpus": corpus, "verbose": False, **bounds}
    # All that count, most similar first.
    listed = mine_hard_negatives(
        dataset, Model(vectors), **arguments, num_negatives=12, output_format="labeled-list", output_scores=True
    )
    allowed = {(row["query"], row["answer"][0]): row["answer"][1:] for row in listed}
    arguments.update(num_negatives=3, sampling_strategy="random", output_format="labeled-list")
    seen = set()
    for seed in range(5):
        random.seed(seed)
        mined = mine_hard_negatives(dataset, Model(vectors), **arguments)
        random.seed(seed)
        assert mined[:] == mine_hard_negatives(dataset, Model(vectors), **arguments)[:]
        assert [(row["query"], row["answer"][0]) for row in mined] == [*allowed]
        for row in mined:
            positive, *found = row["answer"]
            choice = allowed[row["query"], positive]
            places = [choice.index(text) for text in found]
            assert places == sorted({*places}) and len(found) == min(3, len(choice))
            seen.update(places)
        # Rows of one anchor have the same negatives, as theirs do.
        for _, rows in groupby(mined, key=lambda row: row["query"]):
            assert len({tuple(row["answer"][1:]) for row in rows}) == 1
    assert seen == {*range(max(map(len, allowed.values())))}


def test_a_copy_of_the_anchor_is_no_negative():
    vectors = clustered(40, 3)
    texts = [f"text {i}" for i in range(40)]
    # Each text is an anchor, and the positive of the one before.
    dataset = Dataset.from_dict({"a": texts, "b": [*texts[1:], texts[0]]})
    given = Embeddings(vectors, np.roll(vectors, -1, axis=0))
    mined = mine_hard_negatives(dataset, given, num_negatives=38, output_format="n-tuple", verbose=False)
    assert len(mined) == 40
    for row in mined:
        assert len({*row.values()}) == 40


def test_what_cannot_be_mined_is_refused_by_name(data):
    dataset, _, vectors = data
    model = Model(vectors)
    for arguments, words in [
        ({"output_format": "pairs"}, "'labeled-list'"),
        ({"sampling_strategy": "best"}, "'top' or 'random'"),
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"range_min": -1}, "range_min is -1"),
        ({"range_min": 4, "range_max": 6}, "2 ranks from range_min 4 to range_max 6"),
        ({"anchor_column_name": "question"}, "'question' not found; there are query, answer"),
    ]:
        with pytest.raises(ValueError, match=words):
            mine_hard_negatives(dataset, model, **arguments)
    with pytest.raises(ValueError, match="it needs an anchor and a positive"):
        mine_hard_negatives(dataset.select_columns("query"), model)
    with pytest.raises(ValueError, match="empty"):
        mine_hard_negatives(dataset.select([]), model)
    with pytest.raises(ValueError, match="1 nulls"):
        mine_hard_negatives(Dataset.from_dict({"a": ["x", None], "b": ["y", "z"]}), model)
    with pytest.raises(ValueError, match="holds int64"):
        mine_hard_negatives(Dataset.from_dict({"a": [1, 2], "b": ["y", "z"]}), model)
    with pytest.raises(ValueError, match=r"Embeddings.positives has the shape \(3, 4\); give \[303, dimension\]"):
        mine_hard_negatives(dataset, Embeddings(np.ones((303, 4)), np.ones((3, 4))))
    model.similarity_fn_name = "euclidean"
    with pytest.raises(ValueError, match="similarity_fn_name is 'euclidean'"):
        mine_hard_negatives(dataset, model)


def test_a_run_of_pairs_has_margins_too():
    rows = 200
    anchors, positives = clustered(rows, 5), clustered(rows, 6)
    positives = (0.5 * positives + anchors).astype(np.float32)
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (anchors, positives)]
    lists = [pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), DIMENSION) for vectors in unit]
    # The last ten rows have the anchors of the first ten.
    texts = [f"anchor {i % 190}" for i in range(rows)], [f"positive {i}" for i in range(rows)]
    table = pa.table({"a": lists[0], "b": lists[1]})
    settings = {
        "pairs": {"anchor": "a", "positive": "b", "graph_over": "anchors"},
        "graph": {"builder": "exact", "neighbors": 30},
        "encode": {"feature": "vector"},
    }
    scores = unit[0] @ unit[0].T
    pairs = (unit[0] * unit[1]).sum(axis=1)
    dataset = Dataset.from_dict({"anchor": texts[0], "positive": texts[1]})
    with Pipeline({**SMALL, **settings}, data=table).start() as stream:
        assert [stream.handle.pair_similarity(row) for row in range(5)] == pytest.approx(pairs[:5], abs=1e-5)
        arguments = {"num_negatives": 4, "range_min": 1, "output_format": "labeled-list", "output_scores": True}
        mined = mine_hard_negatives(dataset, stream, **arguments, relative_margin=0.1, verbose=False)
        with pytest.raises(ValueError, match="corpus needs a model"):
            mine_hard_negatives(dataset, stream, corpus=["x"])
    found = {row["positive"][0]: row for row in mined}
    for row in range(rows):
        own = {other for other in range(rows) if other % 190 == row % 190}
        bound = min(pairs[other] for other in own) * 0.9
        near = [other for other in np.argsort(-scores[row]) if other != row][:30]
        expected = [f"positive {other}" for other in near if other not in own and scores[row, other] <= bound][1:5]
        if expected:
            assert found[f"positive {row}"]["positive"][1:] == expected
            assert found[f"positive {row}"]["scores"][0] == pytest.approx(pairs[row], abs=1e-5)
        else:
            assert f"positive {row}" not in found


@pytest.mark.parametrize("dimension", [7, 96], ids=["f32", "i8"])
def test_search_finds_the_nearest(dimension):
    corpus, queries = clustered(3000, 1, dimension), clustered(500, 2, dimension)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries.astype(float), corpus.astype(float))]
    exact = unit[0] @ unit[1].T
    ids, similarities = search(torch.from_numpy(queries), corpus, 20)
    assert ids.shape == similarities.shape == (500, 20)
    best = -np.sort(-exact, axis=1)[:, :20]
    assert np.abs(similarities - best).max() < 1e-6
    assert np.abs(np.take_along_axis(exact, ids.astype(int), axis=1) - best).max() < 1e-6
    assert search(queries, corpus[:3], 20)[0].shape == (500, 3)
    assert search(queries[:0], corpus, 20)[0].shape == (0, 20)
    assert search(queries, corpus, 0)[0].shape == (500, 0)
    with pytest.raises(ArgumentError, match="the corpus has"):
        search(queries, corpus[:, :-1], 20)
    with pytest.raises(EncodeError, match="length 0"):
        search(queries, np.zeros_like(corpus), 20)
