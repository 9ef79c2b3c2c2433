"""The text encoder that this folder trains, its tokenizer, and hashed bags of words to measure it against.

Two pre-norm transformer layers over WordPiece tokens, 128 wide, mean over the mask, unit length; exported with

    model.onnx      input_ids, attention_mask [batch, sequence] int64 -> sentence_embedding [batch, 128] f32 of length 1
                    (weights stored as f16, computed in f32; zeros where a row's mask is all zero; any padding, same)
    tokenizer.json  lower-cased WordPiece, [CLS] text [SEP]; trained on the training texts
    reference.json  some texts with their token ids and embeddings, to check another runtime against
"""

import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from common import rounded, unit, write_lines
from training import export

WIDTH, HEADS, LAYERS, HIDDEN, MAX_TOKENS = 128, 4, 2, 512, 64
PAD, CLS, SEP = 0, 2, 3

Pair = tuple[list[int], list[int]]
"""Token ids of two texts that belong together."""


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    )
    # The trainer numbers its pieces in an order that changes from run to run; the alphabet's does not.
    pieces = special + sorted(set(tokenizer.get_vocab()) - set(special))
    numbered = {piece: i for i, piece in enumerate(pieces)}
    tokenizer.model = models.WordPiece(numbered, unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def pad(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids without [CLS] and [SEP] -> input_ids, attention_mask [batch, sequence]."""
    rows = [[CLS, *row[: MAX_TOKENS - 2], SEP] for row in rows]
    ids = np.full((len(rows), max(map(len, rows))), PAD, np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids, (ids != PAD).astype(np.int64)


def drop(row: list[int], share: float, rng: np.random.Generator) -> list[int]:
    """A row of token ids, `share` of them left out at random, but never all."""
    kept = [token for token, r in zip(row, rng.random(len(row))) if r >= share]
    return kept or row


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor, bias: Tensor, dropout: float) -> Tensor:
        batch, sequence, _ = x.shape
        q, k, v = (
            t.reshape(batch, sequence, HEADS, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        attention = torch.softmax(q @ k.transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + bias, dim=-1)
        mixed = self.out((attention @ v).transpose(1, 2).reshape(batch, sequence, WIDTH))
        x = x + F.dropout(mixed, dropout, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.norm2(x)))), dropout, self.training)


class Encoder(nn.Module):
    """`input_ids`, `attention_mask` [batch, sequence] -> embeddings [batch, 128] of unit length."""

    def __init__(self, vocabulary: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.token, self.position = nn.Embedding(vocabulary, WIDTH), nn.Embedding(MAX_TOKENS, WIDTH)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
        nn.init.normal_(self.token.weight, std=0.05)
        nn.init.normal_(self.position.weight, std=0.01)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # A longer text than the model was trained on does not fail: its tail shares the last position.
        positions = torch.arange(input_ids.shape[1]).clamp(max=MAX_TOKENS - 1)
        mask = attention_mask.to(torch.float32)
        x = F.dropout(self.token(input_ids) + self.position(positions), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, (1.0 - mask)[:, None, None, :] * -1e9, self.dropout)
        mean = (self.norm(x) * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        return mean / mean.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-9)


class Batches:
    """Mini-batches of pairs, 32 drawn at a time and sorted by lengths so that little is padding."""

    def __init__(self, samples: int, pair: Callable[[int], Pair], batch: int, rng: np.random.Generator) -> None:
        self.samples, self.pair, self.batch, self.rng = samples, pair, batch, rng
        self.queue: list[list[Pair]] = []

    def next(self) -> tuple[list[list[int]], list[list[int]]]:
        if not self.queue:
            size = min(32 * self.batch, self.samples // self.batch * self.batch)
            pairs = [self.pair(i) for i in self.rng.choice(self.samples, size, replace=False)]
            pairs.sort(key=lambda pair: (len(pair[1]) // 4, len(pair[0])))
            self.queue = [pairs[i : i + self.batch] for i in range(0, size, self.batch)]
            self.rng.shuffle(self.queue)
        left, right = zip(*self.queue.pop())
        return left, right


class Exported:
    """The exported model through ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def tokens(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Embeddings [texts, 128]."""
        rows, out = self.tokens(texts), np.empty((len(texts), WIDTH), np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        for i in range(0, len(order), 256):
            out[order[i : i + 256]] = self.run(*pad([rows[j] for j in order[i : i + 256]]))
        return out


def export_checked(model: Encoder, folder: Path, texts: list[str], reference: list[str]) -> None:
    """Writes model.onnx and reference.json beside the tokenizer, and holds ONNX Runtime against PyTorch on `texts`."""
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    axes = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")} for name in inputs}
    export(model, inputs, axes, "sentence_embedding", folder / "model.onnx")
    encoder = Exported(folder)
    ids, mask = pad(encoder.tokens(texts))
    ours = encoder.run(ids, mask)
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    alone = np.concatenate([encoder.run(*pad(encoder.tokens([text]))) for text in texts])
    to_torch, to_alone = np.abs(ours - theirs).max(), np.abs(ours - alone).max()
    to_unit = np.abs(np.linalg.norm(ours, axis=1) - 1).max()
    print(
        f"{len(texts)} texts, largest differences: to torch {to_torch:.1e}, padded to lone {to_alone:.1e}, "
        f"length to one {to_unit:.1e}"
    )
    assert to_torch <= 2e-3 and to_alone <= 1e-5 and not encoder.run(ids, mask * 0).any()
    rows = [[CLS, *row[: MAX_TOKENS - 2], SEP] for row in encoder.tokens(reference)]
    vectors = [encoder.run(*pad([row[1:-1]]))[0] for row in rows]
    entries = zip(reference, rows, vectors, strict=True)
    write_lines(
        ({"text": text, "input_ids": row, "embedding": rounded(vector)} for text, row, vector in entries),
        folder / "reference.json",
    )


class Hashed:
    """Bags of lower-cased words, each hashed to one of `width` signed coordinates, less those that no text uses."""

    def __init__(self, width: int, texts: list[str], idf_from: list[str] | None = None) -> None:
        used = {zlib.crc32(word.encode()) % width for text in texts for word in self.words(text)}
        self.width, self.column = width, {coordinate: i for i, coordinate in enumerate(sorted(used))}
        self.documents, self.idf = len(idf_from or []), {}
        for text in idf_from or []:
            for word in set(self.words(text)):
                self.idf[word] = self.idf.get(word, 0) + 1

    def words(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Vectors [texts, coordinates] of unit length."""
        out = np.zeros((len(texts), len(self.column)), np.float32)
        for i, text in enumerate(texts):
            for word in self.words(text):
                h = zlib.crc32(word.encode())
                weight = np.log((1 + self.documents) / (1 + self.idf.get(word, 0))) + 1 if self.idf else 1.0
                out[i, self.column[h % self.width]] += weight if h >> 31 else -weight
        return unit(out)


def baselines(texts: list[str], idf_from: list[str]) -> dict[str, Hashed]:
    """Hashed words by name, each width plain (counts) and idf-weighted (document frequencies of `idf_from`)."""
    encoders = {}
    for width in (WIDTH, 65536):
        encoders |= {
            f"hashed words, {width}": Hashed(width, texts),
            f"hashed words, {width}, idf": Hashed(width, texts, idf_from),
        }
    return encoders
