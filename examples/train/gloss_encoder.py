"""Trains the small text encoder in `data/models/gloss-encoder` on WordNet's glosses, exports it to ONNX and probes it.

    pip install -r examples/train/requirements.txt
    python examples/train/gloss_encoder.py                 # train, export, probe
    python examples/train/gloss_encoder.py --probe-only    # probe the exported model (1 minute)

Makes, in `--out`, `model.onnx`, `tokenizer.json` (8,192 pieces) and `reference.json`, which `text_model.py` describes,
and `probe.json`, the table that is printed at the end.

Training is contrastive: a definition should find, among a mini-batch's, what else WordNet says about the same synset
(its words, an example, both, or another wording of the definition), and the reverse. The `label` column takes no part.

One synset in ten, chosen by a hash of its id, is never trained on; both probes look at these alone:
    kNN        label of a definition by majority of its 10 nearest (cosine) among 5,000, itself left out
    retrieval  find the definition of a synset by its first example, or by its words, among all held-out ones with
               examples
Hashed words cost nothing to train: an encoder that does not beat them at its own width has learned nothing of use.

Takes about 15 minutes on two CPU cores, and 3 GB of memory. The same seed, thread count and machine give the same
model.
"""

import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from common import DATA, MODELS, arguments, held_out, knn_accuracy, retrieval, write_probe
from text_model import Batches, Encoder, Exported, Pair, baselines, drop, export_checked, pad, train_tokenizer
from training import fit, info_nce

VOCABULARY = 8192
REFERENCE = [
    "a domesticated carnivorous mammal that barks",
    "dog",
    "A small restaurant where coffee is served: the café, or CAFÉ, on the naïve Señor's street.",
    "move swiftly on foot so that both feet leave the ground at each stride",
    "in a proficient manner",
    (
        "any of numerous trees or shrubs of the genus Acer, bearing winged seeds in pairs; north temperate zone; grown "
        "for timber, for sap that is boiled down to syrup, and for the colors of their leaves in autumn"
    ),
    "32 °F — the temperature (0 °C) at which water freezes!",
    "日本 and emoji 🙂 are unknown to it",
]


class Synset:
    """A row as token ids, and the pairs of texts that it offers."""

    @staticmethod
    def pieces(row: dict) -> list[list[str]]:
        """The whole definition, its wordings, the words, the examples."""
        examples = row["examples"].split(" | ") if row["examples"] else []
        return [
            [row["definition"]],
            [part for part in row["definition"].split("; ") if part],
            row["words"].split(", "),
            examples,
        ]

    def __init__(self, row: dict, ids: dict[str, list[int]]) -> None:
        (self.definition,), self.parts, self.words, self.examples = (
            [ids[piece] for piece in pieces] for pieces in self.pieces(row)
        )

    def pair(self, rng: np.random.Generator) -> Pair:
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


def probe(rows: list[dict], encoder: Exported, path: Path) -> None:
    held = sorted(
        (row for row in rows if held_out(row["synset"])),
        key=lambda row: (zlib.crc32(row["synset"].encode()), row["synset"]),
    )
    training = [row["definition"] for row in rows if not held_out(row["synset"])]
    labeled, paired = held[:5000], [row for row in held if row["examples"]]
    labels = np.unique([row["label"] for row in labeled], return_inverse=True)[1]
    texts = [row[column] or "" for row in held for column in ("definition", "words", "examples")]
    table = []
    for name, encode in {"gloss-encoder, 128": encoder, **baselines(texts, training)}.items():
        definitions = encode([row["definition"] for row in paired])
        entry = {"encoder": name, "knn_accuracy": knn_accuracy(encode([row["definition"] for row in labeled]), labels)}
        entry["example_to_definition"] = retrieval(
            encode([row["examples"].split(" | ")[0] for row in paired]), definitions
        )
        entry["words_to_definition"] = retrieval(encode([row["words"] for row in paired]), definitions)
        table.append(entry)
    facts = {"held_out": len(held), "knn_samples": len(labeled), "retrieval_samples": len(paired)}
    facts["most_frequent_label"] = float(np.bincount(labels).max() / len(labels))
    write_probe(facts, table, path)


def main() -> None:
    args = arguments(
        __doc__,
        data=DATA / "wordnet/glosses.parquet",
        out=MODELS / "gloss-encoder",
        steps=2000,
        batch=256,
        lr=2e-3,
        temperature=0.05,
        seed=0,
        threads=2,
        probe_only=False,
    )
    torch.set_num_threads(args.threads)
    rows = pq.read_table(args.data).to_pylist()
    if not args.probe_only:
        args.out.mkdir(parents=True, exist_ok=True)
        training = [row for row in rows if not held_out(row["synset"])]
        texts = [text for row in training for text in (row["definition"], row["words"], row["examples"]) if text]
        tokenizer = train_tokenizer(texts, VOCABULARY)
        tokenizer.save(str(args.out / "tokenizer.json"), pretty=False)
        ids = dict.fromkeys(piece for row in training for pieces in Synset.pieces(row) for piece in pieces)
        ids = {piece: e.ids for piece, e in zip(ids, tokenizer.encode_batch(list(ids), add_special_tokens=False))}
        synsets = [Synset(row, ids) for row in training]

        torch.manual_seed(args.seed)
        rng = np.random.default_rng(args.seed)
        model = Encoder(VOCABULARY)
        batches = Batches(len(synsets), lambda i: synsets[i].pair(rng), args.batch, rng)

        def loss() -> torch.Tensor:
            a, b = (model(*map(torch.from_numpy, pad(side))) for side in batches.next())
            return info_nce(a, b, args.temperature)

        fit(model, loss, args.steps, args.lr)
        export_checked(model, args.out, REFERENCE + [row["definition"] for row in training[::1000]], REFERENCE)
    probe(rows, Exported(args.out), args.out / "probe.json")


if __name__ == "__main__":
    main()
