"""Trains the small image encoder in `data/models/fashion-encoder` on Fashion-MNIST, exports it to ONNX and probes it.

    python examples/train/fashion_encoder.py                 # train, export, embed, probe
    python examples/train/fashion_encoder.py --probe-only    # probe the exported model

Makes, in `--out`:
    model.onnx      pixel_values [batch, 1, 28, 28] f32 -> embedding [batch, 64] f32 of unit length
                    (a pixel's value is (byte / 255 − 0.286) / 0.353; weights stored as f16, computed in f32)
    reference.json  four images by id, with their embeddings, to check another runtime against
    probe.json      the table that is printed at the end
and, beside `--data`, `embeddings.parquet`: `id`, `label` and `embedding` (64 × f16) of every image, in the same order.

Training is contrastive, as in SimCLR: two random views of an image should find each other among all views of a
mini-batch. A view is a random crop of 50 to 100 % of the area, mirrored or not, its contrast and brightness shifted, a
square of it erased. The head that the loss sees, one hidden layer above the embedding, is left out of the export.
Labels take no part.

One image in ten, chosen by a hash of its id, is never trained on. The probe gives each of these the label of the
majority of its 10 nearest (cosine) among the images that were trained on.

Takes about 10 minutes on two CPU cores.
"""

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from common import (
    DATA,
    MODELS,
    arguments,
    held_out,
    knn_accuracy,
    rounded,
    unit,
    write_lines,
    write_parquet,
    write_probe,
)
from training import export, fit, nt_xent
from training import unit as unit_rows

WIDTH, MEAN, STD = 64, 0.286, 0.353


class Block(nn.Module):
    """Halves height and width, and mixes: [n, inputs, h, w] -> [n, outputs, ⌈h / 2⌉, ⌈w / 2⌉]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return F.relu(x + self.mix(x))


class Encoder(nn.Module):
    """`pixel_values` [batch, channels, height, width] -> embeddings [batch, 64] of unit length."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(channels, 32), Block(32, 64), Block(64, 128))
        self.out = nn.Linear(128, WIDTH)
        self.head = nn.Sequential(
            nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, WIDTH)
        )

    def features(self, pixel_values: Tensor) -> Tensor:
        return self.out(self.blocks(pixel_values).mean(dim=(2, 3)))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return unit_rows(self.features(pixel_values))

    def project(self, pixel_values: Tensor) -> Tensor:
        """What the loss sees: [batch, 64] of unit length."""
        return unit_rows(self.head(self.features(pixel_values)))


def read(path: Path, column: str = "image") -> tuple[pa.Table, np.ndarray]:
    """The rows, and their pixels [rows, channels, height, width] f32 from 0 to 1. All images are of one size."""
    table = pq.read_table(path)
    images = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in table[column].to_pylist()])
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return table, images.astype(np.float32) / 255


def normalize(pixels: Tensor) -> Tensor:
    return (pixels - MEAN) / STD


def view(pixels: Tensor) -> Tensor:
    """A random view of each image: pixels [n, channels, h, w] from 0 to 1 -> the same, normalized."""
    n, _, height, width = pixels.shape

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high)

    side = between(0.5, 1).sqrt()
    aspect = between(-0.2, 0.2).exp()
    scale = torch.stack([side * aspect, side / aspect], dim=1).clamp(max=1)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = scale.T * torch.stack([between(-1, 1).sign(), torch.ones(n)])
    affine[:, :, 2] = (1 - scale) * between(-1, 1, 2)
    pixels = F.grid_sample(pixels, F.affine_grid(affine, list(pixels.shape), align_corners=False), align_corners=False)
    pixels = (pixels * between(0.5, 1.5, 1, 1, 1)).clamp(0, 1) ** between(-0.5, 0.5, 1, 1, 1).exp()
    center, half = between(0, 1, 2, 1), between(0, 0.2, 1)
    rows = (torch.arange(height) / height - center[:, 0]).abs() < half
    columns = (torch.arange(width) / width - center[:, 1]).abs() < half
    return normalize(pixels * ~(rows[:, None, :, None] & columns[:, None, None, :]))


class Exported:
    """The exported model through ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels [n, 1, 28, 28] from 0 to 1 -> embeddings [n, 64]."""
        return np.concatenate(
            [
                self.session.run(
                    None, {"pixel_values": (pixels[i : i + 500] - MEAN).astype(np.float32) / np.float32(STD)}
                )[0]
                for i in range(0, len(pixels), 500)
            ]
        )


def export_checked(model: Encoder, folder: Path, ids: list[str], pixels: np.ndarray) -> None:
    """Writes model.onnx and reference.json, and holds ONNX Runtime against PyTorch on every tenth image."""
    export(
        model,
        {"pixel_values": torch.zeros(2, 1, 28, 28)},
        {"pixel_values": {0: torch.export.Dim("batch")}},
        "embedding",
        folder / "model.onnx",
    )
    some = pixels[::10]
    ours = Exported(folder)(some)
    with torch.no_grad():
        theirs = model(normalize(torch.from_numpy(some))).numpy()
    print(f"{len(some)} images, largest difference to torch {np.abs(ours - theirs).max():.1e}")
    assert np.abs(ours - theirs).max() <= 2e-3
    write_lines(
        ({"id": ids[i], "embedding": rounded(Exported(folder)(pixels[i : i + 1])[0])} for i in range(4)),
        folder / "reference.json",
    )


def probe(table: pa.Table, pixels: np.ndarray, embeddings: np.ndarray, path: Path) -> None:
    labels = np.unique(table["label"].to_numpy(), return_inverse=True)[1]
    held = np.array([held_out(i) for i in table["id"].to_pylist()])
    torch.manual_seed(0)
    with torch.no_grad():
        untrained = Encoder().eval()(normalize(torch.from_numpy(pixels))).numpy()
    raw = pixels.reshape(len(pixels), -1)
    centered = raw - raw[~held].mean(axis=0)
    axes = np.linalg.svd(centered[~held][::4], full_matrices=False)[2][:WIDTH]
    encoders = {
        "fashion-encoder, 64": embeddings,
        "the same, untrained, 64": untrained,
        "principal components, 64": unit(centered @ axes.T),
        "pixels, 784": unit(raw),
    }
    results = [
        {
            "encoder": name,
            "knn_accuracy": knn_accuracy(vectors[held], labels[held], bank=(vectors[~held], labels[~held])),
        }
        for name, vectors in encoders.items()
    ]
    write_probe({"held_out": int(held.sum()), "trained_on": int((~held).sum())}, results, path)


def main() -> None:
    args = arguments(
        __doc__,
        data=DATA / "fashion-mnist/images.parquet",
        out=MODELS / "fashion-encoder",
        steps=800,
        batch=256,
        lr=2e-3,
        temperature=0.2,
        seed=0,
        threads=2,
        probe_only=False,
    )
    torch.set_num_threads(args.threads)
    table, pixels = read(args.data)
    ids = table["id"].to_pylist()
    if not args.probe_only:
        training = torch.from_numpy(pixels[[not held_out(i) for i in ids]])
        torch.manual_seed(args.seed)
        model = Encoder().to(memory_format=torch.channels_last)  # a fifth faster
        queue: list[Tensor] = []

        def loss() -> Tensor:
            if not queue:
                queue.extend(torch.randperm(len(training)).split(args.batch)[: len(training) // args.batch])
            images = training[queue.pop()]
            return nt_xent(model.project(view(images)), model.project(view(images)), args.temperature)

        fit(model, loss, args.steps, args.lr)
        export_checked(model, args.out, ids, pixels)
    embeddings = Exported(args.out)(pixels)
    column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.astype(np.float16).ravel()), WIDTH)
    write_parquet(
        table.select(["id", "label"]).append_column("embedding", column),
        args.data.parent / "embeddings.parquet",
        ["label"],
    )
    probe(table, pixels, embeddings, args.out / "probe.json")


if __name__ == "__main__":
    main()
