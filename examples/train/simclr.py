"""SimCLR with hard negatives: trains an image encoder on mini-batches from `prosampler`, with a kNN score on the way.

    python examples/train/simclr.py --sampler random_walk     # or knn, or uniform
    python examples/train/simclr.py --data images.parquet --image jpeg

The images of `--image`, encoded and all of one size, are held in memory; `--label` is used for the score alone. Encoder
and views are those of `fashion_encoder.py`. The loss is NT-Xent among all views of a mini-batch, so which images share
one decides how hard it is.
"""

import numpy as np
import torch
from torch import Tensor

from common import DATA
from fashion_encoder import Encoder, normalize, read, view
from hard_negatives import Probe, options, train
from training import nt_xent


def main() -> None:
    args = options(__doc__, data=DATA / "fashion-mnist/images.parquet", image="image", lr=2e-3, batch=256)
    table, pixels = read(args.data, args.image)
    images = torch.from_numpy(pixels)
    model = Encoder(images.shape[1])

    def embed(rows: np.ndarray) -> Tensor:
        return model(normalize(images[rows]))

    def project(rows: np.ndarray) -> Tensor:
        return model.project(normalize(images[rows]))

    def loss(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        a, b = (model.project(view(images[rows])) for _ in range(2))
        return nt_xent(a, b, args.temperature), a

    train(model, Probe(table[args.label].to_pylist()), embed, project, loss, args)


if __name__ == "__main__":
    main()
