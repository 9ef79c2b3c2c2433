"""Trains the small text encoder in `data/models/gloss-encoder` on WordNet's glosses, exports it to ONNX and probes it.

    pip install -r examples/train/requirements.txt
    python examples/train/gloss_encoder.py                 # train, export, probe
    python examples/train/gloss_encoder.py --probe-only    # probe the exported model (1 minute)

Makes, in `--out`:
    model.onnx      input_ids, attention_mask [batch, sequence] int64 -> sentence_embedding [batch, 128] f32 of unit length
                    (weights stored as f16, computed in f32; zeros where a row's mask is all zero; any padding, same vector)
    tokenizer.json  lower-cased WordPiece, 8,192 pieces, [CLS] text [SEP]; trained on the training synsets
    reference.json  eight texts with their token ids and embeddings, to check another runtime against
    probe.json      the table that is printed at the end

Training is contrastive: a definition should find, among a mini-batch's, what else WordNet says about the same synset (its words,
an example, both, or another wording of the definition), and the reverse. The `label` column takes no part. One synset in ten, chosen by a
hash of its id, is never trained on: `gloss_probe.py` measures on these alone, and says how.

Takes about 15 minutes on two CPU cores, and 3 GB of memory. The same seed, thread count and machine give the same model.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import pyarrow.parquet as pq
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional as F

from gloss_probe import CLS, MAX_TOKENS, SEP, WIDTH, Exported, held_out, pad, probe

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY, HEADS, LAYERS, HIDDEN = 8192, 4, 2, 512
REFERENCE = [
    "a domesticated carnivorous mammal that barks",
    "dog",
    "A small restaurant where coffee is served: the café, or CAFÉ, on the naïve Señor's street.",
    "move swiftly on foot so that both feet leave the ground at each stride",
    "in a proficient manner",
    "any of numerous trees or shrubs of the genus Acer, bearing winged seeds in pairs; north temperate zone; grown for timber, for sap "
    "that is boiled down to syrup, and for the colors of their leaves in autumn",
    "32 °F — the temperature (0 °C) at which water freezes!",
    "日本 and emoji 🙂 are unknown to it",
]


def train_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False))
    # The trainer numbers its pieces in an order that changes from run to run; the alphabet's does not.
    vocabulary = special + sorted(set(tokenizer.get_vocab()) - set(special))
    numbered = {piece: i for i, piece in enumerate(vocabulary)}
    tokenizer.model = models.WordPiece(numbered, unk_token="[UNK]", max_input_chars_per_word=100)
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)])
    return tokenizer


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x, bias):
        batch, sequence, _ = x.shape
        q, k, v = (t.reshape(batch, sequence, HEADS, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        attention = torch.softmax(q @ k.transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + bias, dim=-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(batch, sequence, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(MAX_TOKENS, WIDTH)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(LAYERS)), nn.LayerNorm(WIDTH)
        nn.init.normal_(self.token.weight, std=0.05)
        nn.init.normal_(self.position.weight, std=0.01)

    def forward(self, input_ids, attention_mask):
        # A longer text than the model was trained on does not fail: its tail shares the last position.
        positions = torch.arange(input_ids.shape[1]).clamp(max=MAX_TOKENS - 1)
        mask = attention_mask.to(torch.float32)
        x = self.token(input_ids) + self.position(positions)
        for layer in self.layers:
            x = layer(x, (1.0 - mask)[:, None, None, :] * -1e9)
        mean = (self.norm(x) * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        return mean / mean.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-9)


def drop(row: list[int], share: float, rng: np.random.Generator) -> list[int]:
    kept = [token for token, r in zip(row, rng.random(len(row))) if r >= share]
    return kept or row


class Synset:
    """A row as token ids, and the pairs of texts that it offers."""

    @staticmethod
    def pieces(row: dict) -> list[list[str]]:
        """The whole definition, its wordings, the words, the examples."""
        examples = row["examples"].split(" | ") if row["examples"] else []
        return [[row["definition"]], [part for part in row["definition"].split("; ") if part], row["words"].split(", "), examples]

    def __init__(self, row: dict, ids: dict[str, list[int]]):
        (self.definition,), self.parts, self.words, self.examples = ([ids[piece] for piece in pieces] for pieces in self.pieces(row))

    def pair(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        words = [token for i in rng.permutation(len(self.words)) for token in self.words[i]]
        example = self.examples[rng.integers(len(self.examples))] if self.examples else []
        roll = rng.random()
        if roll < 0.15:  # two wordings of the definition, or two thinned copies of the only one
            if len(self.parts) > 1:
                i, j = rng.choice(len(self.parts), 2, replace=False)
                return self.parts[i], self.parts[j]
            return drop(self.definition, 0.3, rng), drop(self.definition, 0.3, rng)
        if roll < 0.3:  # a word with its example or with half of its definition
            return drop(self.definition, 0.5, rng), words + (example or drop(self.definition, 0.7, rng))
        return drop(self.definition, 0.1, rng), example if example and roll < 0.65 else words


def train(synsets: list[Synset], args: argparse.Namespace) -> Encoder:
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps, pct_start=0.1)
    queue, began, mean_loss = [], time.time(), 0.0
    for step in range(args.steps):
        if not queue:  # 32 mini-batches at a time, sorted by lengths so that little is padding
            chosen = rng.choice(len(synsets), min(32 * args.batch, len(synsets) // args.batch * args.batch), replace=False)
            pairs = sorted((synsets[i].pair(rng) for i in chosen), key=lambda pair: (len(pair[1]) // 4, len(pair[0])))
            queue = [pairs[i : i + args.batch] for i in range(0, len(pairs), args.batch)]
            rng.shuffle(queue)
        left, right = zip(*queue.pop())
        a, b = (model(*map(torch.from_numpy, pad(side))) for side in (left, right))
        scores, target = a @ b.T / args.temperature, torch.arange(len(a))
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step + 1, 100)
        if (step + 1) % 100 == 0:
            print(f"step {step + 1:5}  loss {mean_loss:.3f}  {time.time() - began:.0f} s", flush=True)
    return model.eval()


def export(model: Encoder, path: Path) -> None:
    """Writes the model with its weights as f16, each followed by a Cast that the runtime folds when it loads the file."""
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in range(2))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    names = ["input_ids", "attention_mask"]
    program = torch.onnx.export(
        model, example, dynamo=True, opset_version=20, input_names=names, output_names=["sentence_embedding"],
        dynamic_shapes={name: axes for name in names}, optimize=True, verbose=False,
    )  # fmt: skip
    proto = program.model_proto
    graph, casts = proto.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= WIDTH:
            name = tensor.name
            casts.append(helper.make_node("Cast", [name + ".f16"], [name], name=name + ".cast", to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + ".f16"))
    nodes = casts + list(graph.node)
    for node in nodes:  # no source lines, no paths
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for field in (graph, proto):
        field.ClearField("metadata_props")
        field.ClearField("doc_string")
    for value in [*graph.input, *graph.output]:
        value.ClearField("metadata_props")
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.name = "gloss-encoder"
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, opset {[o.version for o in proto.opset_import]}")


def check(encoder: Exported, model: Encoder, texts: list[str]) -> None:
    ids, mask = pad(encoder.tokens(texts))
    ours = encoder.run(ids, mask)
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    alone = np.concatenate([encoder.run(*pad(encoder.tokens([text]))) for text in texts])
    to_torch, to_alone = np.abs(ours - theirs).max(), np.abs(ours - alone).max()
    to_unit = np.abs(np.linalg.norm(ours, axis=1) - 1).max()
    print(f"{len(texts)} texts, largest differences: to torch {to_torch:.1e}, padded to lone {to_alone:.1e}, length to one {to_unit:.1e}")
    assert to_torch <= 2e-3 and to_alone <= 1e-5 and not encoder.run(ids, mask * 0).any()


def write_reference(encoder: Exported, path: Path) -> None:
    rows = [[CLS, *row[: MAX_TOKENS - 2], SEP] for row in encoder.tokens(REFERENCE)]
    vectors = [encoder.run(*pad([row[1:-1]]))[0] for row in rows]
    lines = []
    for text, row, vector in zip(REFERENCE, rows, vectors, strict=True):
        entry = {"text": text, "input_ids": row, "embedding": [round(float(x), 6) for x in vector]}
        lines.append(json.dumps(entry, ensure_ascii=False))
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data/wordnet/glosses.parquet")
    parser.add_argument("--out", type=Path, default=ROOT / "data/models/gloss-encoder")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--temperature", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--probe-only", action="store_true", help="train nothing: probe the model in --out")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    rows = pq.read_table(args.data).to_pylist()
    if not args.probe_only:
        args.out.mkdir(parents=True, exist_ok=True)
        training = [row for row in rows if not held_out(row["synset"])]
        texts = [text for row in training for text in (row["definition"], row["words"], row["examples"]) if text]
        tokenizer = train_tokenizer(texts)
        tokenizer.save(str(args.out / "tokenizer.json"), pretty=False)
        ids = dict.fromkeys(piece for row in training for pieces in Synset.pieces(row) for piece in pieces)
        ids = {piece: e.ids for piece, e in zip(ids, tokenizer.encode_batch(list(ids), add_special_tokens=False))}
        model = train([Synset(row, ids) for row in training], args)
        export(model, args.out / "model.onnx")
        check(Exported(args.out), model, REFERENCE + [row["definition"] for row in training[::1000]])
        write_reference(Exported(args.out), args.out / "reference.json")
    probe(rows, Exported(args.out), args.out / "probe.json")


if __name__ == "__main__":
    main()
