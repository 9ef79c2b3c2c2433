"""Probes the text encoder that `gloss_encoder.py` makes, through ONNX Runtime, against hashed bags of words.

    python examples/train/gloss_encoder.py --probe-only

One synset in ten, chosen by a hash of its id, is never trained on; both probes look at these alone:
    kNN        label of a definition by majority of its 10 nearest (cosine) among 5,000, itself left out
    retrieval  find the definition of a synset by its first example, or by its words, among all held-out ones with examples
Hashed words are signed and of unit length, each width plain (counts) and idf-weighted (document frequencies of the training
definitions). They cost nothing to train: an encoder that does not beat them at its own width has learned nothing of use.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

WIDTH, MAX_TOKENS = 128, 64
PAD, CLS, SEP = 0, 2, 3


def held_out(synset: str) -> bool:
    return zlib.crc32(synset.encode()) % 10 == 0


def pad(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids without [CLS] and [SEP] -> input_ids, attention_mask."""
    rows = [[CLS, *row[: MAX_TOKENS - 2], SEP] for row in rows]
    ids = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, (ids != PAD).astype(np.int64)


class Exported:
    """The exported model through ONNX Runtime."""

    def __init__(self, folder: Path):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    def __call__(self, texts: list[str]) -> np.ndarray:
        rows, out = self.tokens(texts), np.empty((len(texts), WIDTH), np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        for i in range(0, len(order), 256):
            out[order[i : i + 256]] = self.run(*pad([rows[j] for j in order[i : i + 256]]))
        return out


class Hashed:
    """Bags of lower-cased words, each hashed to one of `width` signed coordinates; those that no text of `texts` uses are left out."""

    def __init__(self, width: int, texts: list[str], idf_from: list[str] | None = None):
        used = {zlib.crc32(word.encode()) % width for text in texts for word in self.words(text)}
        self.width, self.column = width, {coordinate: i for i, coordinate in enumerate(sorted(used))}
        self.documents, self.idf = len(idf_from or []), {}
        for text in idf_from or []:
            for word in set(self.words(text)):
                self.idf[word] = self.idf.get(word, 0) + 1

    def words(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())

    def __call__(self, texts: list[str]) -> np.ndarray:
        out = np.zeros((len(texts), len(self.column)), np.float32)
        for i, text in enumerate(texts):
            for word in self.words(text):
                h = zlib.crc32(word.encode())
                weight = np.log((1 + self.documents) / (1 + self.idf.get(word, 0))) + 1 if self.idf else 1.0
                out[i, self.column[h % self.width]] += weight if h >> 31 else -weight
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)


def knn_accuracy(vectors: np.ndarray, labels: np.ndarray, k: int = 10) -> float:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argpartition(-scores, k, axis=1)[:, :k]
    votes = np.zeros((len(labels), labels.max() + 1))
    for column in nearest.T:  # a tie goes to the label with the larger summed similarity
        votes[np.arange(len(labels)), labels[column]] += 1 + 1e-3 * scores[np.arange(len(labels)), column]
    return float((votes.argmax(axis=1) == labels).mean())


def retrieval(queries: np.ndarray, documents: np.ndarray) -> dict[str, float]:
    scores = queries @ documents.T
    own = scores.diagonal()[:, None]
    rank = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2  # ties share the mean of their ranks
    return {"recall@1": float((rank <= 1).mean()), "recall@10": float((rank <= 10).mean()), "mrr": float((1 / rank).mean())}


def probe(rows: list[dict], encoder: Exported, path: Path) -> None:
    held = sorted((row for row in rows if held_out(row["synset"])), key=lambda row: (zlib.crc32(row["synset"].encode()), row["synset"]))
    training = [row["definition"] for row in rows if not held_out(row["synset"])]
    labeled, paired = held[:5000], [row for row in held if row["examples"]]
    labels = np.unique([row["label"] for row in labeled], return_inverse=True)[1]
    texts = [row[column] or "" for row in held for column in ("definition", "words", "examples")]
    encoders = {"gloss-encoder, 128": encoder}
    for width in (128, 65536):
        encoders |= {f"hashed words, {width}": Hashed(width, texts), f"hashed words, {width}, idf": Hashed(width, texts, training)}
    table = []
    for name, encode in encoders.items():
        definitions = encode([row["definition"] for row in paired])
        entry = {"encoder": name, "knn_accuracy": knn_accuracy(encode([row["definition"] for row in labeled]), labels)}
        entry["example_to_definition"] = retrieval(encode([row["examples"].split(" | ")[0] for row in paired]), definitions)
        entry["words_to_definition"] = retrieval(encode([row["words"] for row in paired]), definitions)
        table.append(entry)
    facts = {"held_out": len(held), "knn_samples": len(labeled), "retrieval_samples": len(paired)}
    facts["most_frequent_label"] = float(np.bincount(labels).max() / len(labels))
    path.write_text(json.dumps(facts | {"encoders": table}, indent=1) + "\n")
    print(json.dumps(facts))
    print("| encoder | kNN | example → definition: recall@1 | recall@10 | MRR | words → definition: recall@1 | recall@10 | MRR |")
    print("|---|" + "---:|" * 7)
    for entry in table:
        values = [entry["knn_accuracy"], *entry["example_to_definition"].values(), *entry["words_to_definition"].values()]
        print(f"| {entry['encoder']} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
