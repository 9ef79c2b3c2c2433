"""Images: SimCLR. Two views of an image should find each other among all views of a mini-batch.

Views are random crops and the like. Those of glyphs are of two images, of the same letter in two fonts: which fonts
draw the same letter is what an encoder should learn, and with views of one image it scores below an untrained one.

fashion     Fashion-MNIST, 28 × 28 grey, 10 classes
fashion10k  the 10,000 images of it in `data/`
cifar10     CIFAR-10, 32 × 32, 10 classes, of a copy that is encoded as JPEG: scores are not those of the original
glyphs      letters and digits in many fonts, 32 × 32 grey, over 1,000 classes, as `glyphs.py` makes them

A tenth of the training images is `dev`; `test` is the test set. Those of glyphs are fonts that no training image is of.
The score is how many images the nearest training images give the right class: 10 of at most 10,000, or for glyphs the
nearest of all. Where classes are few, a linear probe on the same images follows. Both see what is below the head.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from common import knn_accuracy
from common import unit as unit_rows
from training import unit

from .image_sets import SETS, view
from .losses import LOSSES
from .task import Step, Task, in_parts, measure_again
from .trial import Trial

WIDTHS, PROJECTED = (32, 64, 128), 64
WIDTH = WIDTHS[-1]
BANK, MANY_CLASSES = 10_000, 100


class Block(nn.Module):
    """Halves height and width, and mixes. With GroupNorm in place of BatchNorm it learns nothing in so few steps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return F.relu(x + self.mix(x))


class Encoder(nn.Module):
    """Pixels [n, channels, height, width] -> features [n, 128], the mean over all places."""

    def __init__(self, pixels: Tensor) -> None:
        super().__init__()
        channels = pixels.shape[1]
        self.register_buffer("mean", pixels.mean(dim=(0, 2, 3), keepdim=True))
        self.register_buffer("std", pixels.std(dim=(0, 2, 3), keepdim=True))
        blocks = [Block(i, o) for i, o in zip((channels, *WIDTHS), WIDTHS, strict=False)]
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.out = nn.Linear(WIDTH, PROJECTED)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.features((pixels - self.mean) / self.std)

    def project(self, pixels: Tensor) -> Tensor:
        """What the loss sees: [n, 64] of unit length."""
        return unit(self.out(self.head(self(pixels))))


def open_task(trial: Trial, data: Path) -> Task:
    images = SETS[trial.data](data)
    training = np.random.default_rng(0).permutation(images.splits["train"])[: trial.rows]
    labels = images.labels[training]
    pixels = torch.from_numpy(images.pixels(training))
    model = Encoder(as_floats(pixels[:1000]))

    partners = Partners(labels, trial.seed) if labels.max() >= MANY_CLASSES else None

    def embed(rows: np.ndarray) -> Tensor:
        return model.project(as_floats(pixels[rows]))

    def step(rows: np.ndarray, number: int) -> Step:
        sides = rows, partners(rows, number) if partners else rows
        both = torch.cat([view(as_floats(pixels[side]), images.views) for side in sides])
        a, b = model.project(both).chunk(2)
        return Step(LOSSES[trial.loss](a, b, trial.temperature), unit(a + b).detach(), same_class(labels[rows]))

    def features(of: Tensor) -> np.ndarray:
        return in_parts(lambda rows: model(as_floats(of[rows])), np.arange(len(of)))

    def score(split: str) -> dict[str, float]:
        measure_again(model, lambda rows: model(as_floats(pixels[rows])), len(training))
        rows = images.splits[split]
        queries, known = features(torch.from_numpy(images.pixels(rows))), images.labels[rows]
        if labels.max() >= MANY_CLASSES:
            return {"nearest": nearest_accuracy(queries, known, (features(pixels), labels))}
        bank = features(pixels[:BANK]), labels[:BANK]
        return {
            "knn": nearest_accuracy(queries, known, bank, k=10),
            "linear": probe_accuracy(queries, known, bank),
        }

    positives = {"class": pa.array(labels)} if partners else {}
    return Task(len(training), model, step, embed, score, {"image": as_numbers(pixels), **positives})


class Partners:
    """Another sample of the same class for each of some samples, or itself if there is none."""

    def __init__(self, labels: np.ndarray, seed: int) -> None:
        self.labels, self.seed = labels, seed
        self.by_class = np.argsort(labels, kind="stable")
        self.sizes = np.bincount(labels)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.place = np.empty(len(labels), int)
        self.place[self.by_class] = np.arange(len(labels))

    def __call__(self, rows: np.ndarray, step: int) -> np.ndarray:
        sizes, starts = self.sizes[self.labels[rows]], self.starts[self.labels[rows]]
        rng = np.random.default_rng([self.seed, step])
        further = 1 + (rng.random(len(rows)) * np.maximum(sizes - 1, 1)).astype(int)
        return self.by_class[starts + (self.place[rows] - starts + further) % sizes]


def as_floats(pixels: Tensor) -> Tensor:
    return pixels.float() / 255


def as_numbers(pixels: Tensor) -> pa.Array:
    """A number for each image; equal for equal images, as some fonts draw some letters."""
    numbers: dict[bytes, int] = {}
    return pa.array([numbers.setdefault(image.tobytes(), len(numbers)) for image in pixels.numpy()], pa.int64())


def same_class(labels: np.ndarray) -> float:
    """The share of pairs that are of one class."""
    n = len(labels)
    return float(((labels[:, None] == labels).sum() - n) / (n * (n - 1)))


def nearest_accuracy(queries: np.ndarray, labels: np.ndarray, bank: tuple[np.ndarray, np.ndarray], k: int = 1) -> float:
    """`knn_accuracy` by cosine, 500 queries at a time, which bounds its memory."""
    queries, bank = unit_rows(queries), (unit_rows(bank[0]), bank[1])
    parts = [slice(i, i + 500) for i in range(0, len(queries), 500)]
    found = sum(knn_accuracy(queries[p], labels[p], k, bank) * len(labels[p]) for p in parts)
    return found / len(labels)


def probe_accuracy(queries: np.ndarray, labels: np.ndarray, bank: tuple[np.ndarray, np.ndarray]) -> float:
    mean, std = bank[0].mean(axis=0), bank[0].std(axis=0) + 1e-6
    probe = LogisticRegression(C=0.01, tol=1e-3, max_iter=300).fit((bank[0] - mean) / std, bank[1])
    return float(probe.score((queries - mean) / std, labels))
