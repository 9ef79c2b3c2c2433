"""SimCSE with hard negatives: trains a text encoder on mini-batches from `prosampler`, with a kNN score on the way.

    python examples/train/simcse.py --sampler random_walk     # or knn, or uniform
    python examples/train/simcse.py --data pairs.parquet --text anchor --positive positive --label book

Without `--positive` a text is its own positive: it goes through the encoder twice, and dropout makes the difference.
With it, the text of that column is the positive. `--label` is used for the score alone. The encoder is that of
`text_model.py`, trained from nothing, and so is its tokenizer.
"""

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from common import DATA
from hard_negatives import Probe, options, train
from text_model import Encoder, pad, train_tokenizer
from training import info_nce


def main() -> None:
    args = options(
        __doc__,
        data=DATA / "wordnet/glosses.parquet",
        text="definition",
        positive="",
        vocabulary=8192,
        dropout=0.1,
        epochs=1,
        temperature=0.05,
    )
    table = pq.read_table(args.data)
    probe = Probe(table[args.label].to_pylist())
    texts = table[args.text].to_pylist()
    positives = table[args.positive].to_pylist() if args.positive else []
    tokenizer = train_tokenizer(
        [side[row] for side in (texts, positives) if side for row in probe.training], args.vocabulary
    )
    ids, positive_ids = (
        [e.ids for e in tokenizer.encode_batch(side, add_special_tokens=False)] for side in (texts, positives)
    )
    model = Encoder(args.vocabulary, args.dropout)

    def embed(rows: np.ndarray, of: list[list[int]] = ids) -> Tensor:
        return model(*map(torch.from_numpy, pad([of[row] for row in rows])))

    def loss(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        a, b = embed(rows), embed(rows, positive_ids or ids)
        return info_nce(a, b, args.temperature), a

    train(model, probe, embed, embed, loss, args)


if __name__ == "__main__":
    main()
