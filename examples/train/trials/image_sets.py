"""The data sets of `image`, and random views of their images."""

import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from common import DATA


@dataclass(frozen=True)
class Views:
    """What a random view does to an image, before its contrast and brightness change and a square of it is erased."""

    side: tuple[float, float] = (0.7, 1.0)
    """The side of what is seen, as a share of the image's."""
    shift: float = 0.0
    """How far it may lie outside the image, as a share of half the image's side."""
    shear: float = 0.0
    mirror: bool = True
    erased: float = 0.4
    """The largest side of the erased square, as a share of the image's."""


@dataclass(frozen=True)
class Images:
    labels: np.ndarray
    splits: dict[str, np.ndarray]
    """The rows of `train`, `dev` and `test`."""
    pixels: Callable[[np.ndarray], np.ndarray]
    """The images of some rows: u8 `[rows, channels, height, width]`."""
    views: Views = Views()


def fashion(data: Path) -> Images:
    parts = [idx(data / f"image/{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28) for part in ("train", "t10k")]
    labels = [idx(data / f"image/{part}-labels-idx1-ubyte.gz", 8) for part in ("train", "t10k")]
    return Images(np.concatenate(labels), tenth_as_dev(*map(len, parts)), np.concatenate(parts).__getitem__)


def fashion10k(_: Path) -> Images:
    table = pq.read_table(DATA / "fashion-mnist/images.parquet")
    place = np.array([zlib.crc32(key.encode()) % 10 for key in table["id"].to_pylist()])
    splits = {"train": np.flatnonzero(place > 1), "dev": np.flatnonzero(place == 1), "test": np.flatnonzero(place == 0)}
    return Images(numbers(table["label"]), splits, decoded(table["image"]))


def cifar10(data: Path) -> Images:
    parts = [pq.read_table(data / f"image/cifar10_{part}_jpeg.parquet") for part in ("train", "test")]
    table = pa.concat_tables(parts)
    return Images(numbers(table["label"]), tenth_as_dev(*map(len, parts)), decoded(table["jpeg"]))


def glyphs(data: Path) -> Images:
    table = pq.read_table(data / "image/glyphs.parquet")
    of = table["split"].to_numpy()
    splits = {split: np.flatnonzero(of == split) for split in ("train", "dev", "test")}
    views = Views(side=(0.85, 1.15), shift=0.15, shear=0.2, mirror=False, erased=0.3)
    return Images(numbers(table["letter"]), splits, decoded(table["image"]), views)


SETS: dict[str, Callable[[Path], Images]] = {
    "fashion": fashion,
    "fashion10k": fashion10k,
    "cifar10": cifar10,
    "glyphs": glyphs,
}


def idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def tenth_as_dev(training: int, test: int) -> dict[str, np.ndarray]:
    """Rows of the splits if those of the test set follow those of the training set; a tenth of these is `dev`."""
    rows = np.random.default_rng(1).permutation(training)
    return {"train": rows[training // 10 :], "dev": rows[: training // 10], "test": training + np.arange(test)}


def numbers(labels: pa.ChunkedArray) -> np.ndarray:
    return np.unique(labels.to_numpy(), return_inverse=True)[1]


def decoded(column: pa.ChunkedArray) -> Callable[[np.ndarray], np.ndarray]:
    def pixels(rows: np.ndarray) -> np.ndarray:
        images = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in column.take(rows).to_pylist()])
        return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)

    return pixels


def view(pixels: Tensor, views: Views) -> Tensor:
    """A random view of each image, `[n, channels, h, w]` from 0 to 1."""
    n, channels, height, width = pixels.shape

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high)

    scale = between(*views.side, 1) * (between(-0.15, 0.15, 1) * torch.tensor([1.0, -1.0])).exp()
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = scale.T
    affine[:, 0, 1] = between(-1, 1) * views.shear
    if views.mirror:
        affine[:, 0, 0] *= between(-1, 1).sign()
    affine[:, :, 2] = ((1 - scale).abs() + views.shift) * between(-1, 1, 2)
    pixels = F.grid_sample(pixels, F.affine_grid(affine, list(pixels.shape), align_corners=False), align_corners=False)
    if channels == 3:
        pixels = recolored(pixels, between)
    pixels = (pixels * between(0.5, 1.5, 1, 1, 1)).clamp(0, 1) ** between(-0.5, 0.5, 1, 1, 1).exp()
    center, half = between(0, 1, 2, 1), between(0, views.erased / 2, 1)
    rows = (torch.arange(height) / height - center[:, 0]).abs() < half
    columns = (torch.arange(width) / width - center[:, 1]).abs() < half
    return pixels * ~(rows[:, None, :, None] & columns[:, None, None, :])


def recolored(pixels: Tensor, between: Callable[..., Tensor]) -> Tensor:
    """Each channel brighter or darker, all colours more or less strong; one image in five is grey."""
    grey = pixels.mean(dim=1, keepdim=True)
    strength = between(0.4, 1.6, 1, 1, 1) * (between(0, 1, 1, 1, 1) > 0.2)
    return (grey + (pixels - grey) * strength) * (1 + (between(-0.3, 0.3, 3, 1, 1)) * (strength > 0))
