"""Trains the small text encoder in `data/models/verse-encoder` on Bible verses, exports it to ONNX and probes it.

    python examples/train/verse_encoder.py                 # train, export, probe
    python examples/train/verse_encoder.py --probe-only    # probe the exported model

Makes, in `--out`, `model.onnx`, `tokenizer.json` (4,096 pieces) and `reference.json`, which `text_model.py` describes,
and `probe.json`, the table that is printed at the end.

Training is contrastive: a verse of the King James Version should find, among a mini-batch's, the same verse of the
World English Bible, and the reverse. A tenth of the tokens is dropped from either side at random. `book` takes no part.

One verse in ten, chosen by a hash of its id, is never trained on; both probes look at these alone:
    retrieval  find a verse of the World English Bible by that of the King James Version, among all held-out ones
    kNN        book of a King James verse by majority of its 10 nearest (cosine), itself left out

Takes about 10 minutes on two CPU cores. The same seed, thread count and machine give the same model.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from common import DATA, MODELS, arguments, held_out, knn_accuracy, retrieval, write_probe
from text_model import Batches, Encoder, Exported, Pair, baselines, drop, export_checked, pad, train_tokenizer
from training import fit, info_nce

VOCABULARY = 4096
REFERENCE = [
    "In the beginning God created the heaven and the earth.",
    "Thou shalt not bear false witness against thy neighbour.",
    "“You shall not give false testimony against your neighbor.",
    "Jesus wept.",
    "the trees of the garden",
    "Naïve café — 12 baskets!",
]


def probe(rows: list[dict], encoder: Exported, path: Path) -> None:
    held = [row for row in rows if held_out(row["verse"])]
    anchors, positives = ([row[side] for row in held] for side in ("anchor", "positive"))
    training = [row[side] for row in rows if not held_out(row["verse"]) for side in ("anchor", "positive")]
    books = np.unique([row["book"] for row in held], return_inverse=True)[1]
    encoders = {"verse-encoder, 128": encoder, "gloss-encoder, 128": Exported(MODELS / "gloss-encoder")}
    table = []
    for name, encode in {**encoders, **baselines(anchors + positives, training)}.items():
        queries = encode(anchors)
        table.append(
            {"encoder": name} | retrieval(queries, encode(positives)) | {"knn_accuracy": knn_accuracy(queries, books)}
        )
    facts = {"held_out": len(held), "most_frequent_book": float(np.bincount(books).max() / len(books))}
    write_probe(facts, table, path)


def main() -> None:
    args = arguments(
        __doc__,
        data=DATA / "bible/pairs.parquet",
        out=MODELS / "verse-encoder",
        steps=700,
        batch=192,
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
        training = [row for row in rows if not held_out(row["verse"])]
        texts = [[row[side] for row in training] for side in ("anchor", "positive")]
        tokenizer = train_tokenizer(texts[0] + texts[1], VOCABULARY)
        tokenizer.save(str(args.out / "tokenizer.json"), pretty=False)
        left, right = ([e.ids for e in tokenizer.encode_batch(side, add_special_tokens=False)] for side in texts)

        torch.manual_seed(args.seed)
        rng = np.random.default_rng(args.seed)
        model = Encoder(VOCABULARY)

        def pair(i: int) -> Pair:
            return drop(left[i], 0.1, rng), drop(right[i], 0.1, rng)

        batches = Batches(len(training), pair, args.batch, rng)

        def loss() -> torch.Tensor:
            a, b = (model(*map(torch.from_numpy, pad(side))) for side in batches.next())
            return info_nce(a, b, args.temperature)

        fit(model, loss, args.steps, args.lr)
        export_checked(model, args.out, REFERENCE + texts[0][::300], REFERENCE)
    probe(rows, Exported(args.out), args.out / "probe.json")


if __name__ == "__main__":
    main()
