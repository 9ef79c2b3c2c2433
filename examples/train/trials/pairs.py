"""Pairs: a text should find its own among others. One encoder from scratch for both sides.

packages   short → long description of Debian packages, cut at 64 tokens; families of packages are near copies
wordnet    words of a synset → its definition
verses     a verse of the King James Version → that of the World English Bible

Tokens are those of the shipped encoders' tokenizers, since training one does not give the same one twice.

One pair in ten, by a hash of its key, is `test`, one `dev`; the rest is trained on. The score is how many left sides
find their right side first, among all right sides of the split.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer
from torch import Tensor

from common import DATA, MODELS, retrieval
from text_model import MAX_TOKENS, drop, pad
from training import unit

from .encoders import ENCODERS
from .losses import LOSSES
from .task import Step, Task, in_parts
from .trial import Trial

DROPPED = 0.1

Texts = tuple[list[str], list[str], list[str]]
"""Keys, left sides, right sides."""


def packages(data: Path) -> Texts:
    table = pq.read_table(data / "text/debian_descriptions.parquet")
    return tuple(table[name].to_pylist() for name in ("pkg", "short", "long"))


def wordnet(_: Path) -> Texts:
    table = pq.read_table(DATA / "wordnet/glosses.parquet")
    return tuple(table[name].to_pylist() for name in ("synset", "words", "definition"))


def verses(_: Path) -> Texts:
    table = pq.read_table(DATA / "bible/pairs.parquet")
    return tuple(table[name].to_pylist() for name in ("verse", "anchor", "positive"))


SETS: dict[str, Callable[[Path], Texts]] = {"packages": packages, "wordnet": wordnet, "verses": verses}


def split(keys: list[str], rows: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The rows of each split, at most `rows` of them, the same for all seeds."""
    place = np.array([zlib.crc32(key.encode()) % 10 for key in keys])
    training = np.random.default_rng(0).permutation(np.flatnonzero(place > 1))
    splits = {"train": training, "dev": np.flatnonzero(place == 1), "test": np.flatnonzero(place == 0)}
    return {name: splits[name][:rows] for name in names}


def tokens(tokenizer: Tokenizer, texts: list[str], rows: np.ndarray) -> dict[int, list[int]]:
    """Token ids by row, without [CLS] and [SEP]."""
    found = tokenizer.encode_batch([texts[row] for row in rows], add_special_tokens=False)
    return {int(row): each.ids[: MAX_TOKENS - 2] for row, each in zip(rows, found, strict=True)}


def open_task(trial: Trial, data: Path) -> Task:
    keys, *texts = SETS[trial.data](data)
    splits = split(keys, trial.rows, ("train", "dev", "test") if trial.test else ("train", "dev"))
    training = splits["train"]
    name = "verse-encoder" if trial.data == "verses" else "gloss-encoder"
    tokenizer = Tokenizer.from_file(str(MODELS / name / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    used = np.concatenate(list(splits.values()))
    left, right = (tokens(tokenizer, side, used) for side in texts)
    model = ENCODERS[trial.encoder](tokenizer.get_vocab_size())

    def encode(rows: list[list[int]]) -> Tensor:
        return model(*map(torch.from_numpy, pad(rows)))

    def embed(rows: np.ndarray) -> Tensor:
        own = training[rows]
        return unit(encode([left[i] for i in own]) + encode([right[i] for i in own]))

    def step(rows: np.ndarray, number: int) -> Step:
        rng, own = np.random.default_rng([trial.seed, number]), training[rows]
        a, b = (encode([drop(side[i], DROPPED, rng) for i in own]) for side in (left, right))
        return Step(LOSSES[trial.loss](a, b, trial.temperature), unit(a + b).detach(), above_positive(a, b))

    def score(name: str) -> dict[str, float]:
        queries, documents = (
            in_parts(lambda rows, side=side: encode([side[i] for i in rows]), splits[name]) for side in (left, right)
        )
        return retrieval(queries, documents)

    columns = {name: texts_as_numbers(side, training) for name, side in (("anchor", left), ("positive", right))}
    return Task(len(training), model, step, embed, score, columns)


def above_positive(a: Tensor, b: Tensor) -> float:
    """The share of in-batch negatives that are more similar than the positive, which false negatives often are."""
    scores = (a @ b.T).detach()
    return ((scores > scores.diagonal()[:, None]).sum() / (len(a) * (len(a) - 1))).item()


def texts_as_numbers(tokens: Mapping[int, list[int]] | list[list[int]], rows: np.ndarray) -> pa.Array:
    """A number for each text as the encoder reads it; equal for equal texts."""
    numbers: dict[tuple[int, ...], int] = {}
    return pa.array([numbers.setdefault(tuple(tokens[row]), len(numbers)) for row in rows], pa.int64())
