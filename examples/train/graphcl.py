"""GraphCL with hard negatives: trains a graph encoder on mini-batches from `prosampler`, with a kNN score on the way.

    python examples/train/graphcl.py --sampler random_walk     # or knn, or uniform
    python examples/train/graphcl.py --data graphs.parquet

`--data` has the columns of `data/b3db/molecules.parquet`: node and edge categories as PyTorch Geometric numbers those
of molecules. `--label` is used for the score alone. Encoder and views are those of `molecule_encoder.py`.
"""

import numpy as np
from torch import Tensor

from common import DATA
from hard_negatives import Probe, options, train
from molecule_encoder import Encoder, read, tensors, view
from training import nt_xent


def main() -> None:
    args = options(__doc__, data=DATA / "b3db/molecules.parquet")
    table, graphs = read(args.data)
    rng = np.random.default_rng(args.seed)
    model = Encoder()

    def embed(rows: np.ndarray) -> Tensor:
        return model(*tensors([graphs[row] for row in rows]))

    def project(rows: np.ndarray) -> Tensor:
        return model.project(*tensors([graphs[row] for row in rows]))

    def loss(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        a, b = (model.project(*tensors([view(graphs[row], rng) for row in rows])) for _ in range(2))
        return nt_xent(a, b, args.temperature), a

    train(model, Probe(table[args.label].to_pylist()), embed, project, loss, args)


if __name__ == "__main__":
    main()
