"""Makes `data/fashion-mnist/images.parquet` and `data/fashion-mnist/LICENSE` from the files of Fashion-MNIST.

One row an image: the first 1,000 of each class of the training set, in its order.

    id     string   unique: `train-00042`, the image's place in the training set
    label  string   one of 10 classes: `Trouser`, `Ankle boot`, …
    image  binary   28×28 grayscale PNG

The inputs are idx files, which Debian packages as `dataset-fashion-mnist`:

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb fashion
    python examples/train/fashion_mnist.py --data fashion/usr/share

Takes about a minute.
"""

import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from common import DATA, arguments, write_parquet

LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def idx(path: Path) -> np.ndarray:
    """The bytes of a gzipped idx file, as an array of the shape that its head tells."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def png(pixels: np.ndarray) -> bytes:
    """Pixels [height, width] as the smallest PNG that zlib makes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    args = arguments(__doc__, data=Path("fashion/usr/share"), out=DATA / "fashion-mnist", per_class=1000)
    images, labels = (next(args.data.rglob(f"train-{name}-ubyte.gz")) for name in ("images-idx3", "labels-idx1"))
    images, labels = idx(images), idx(labels)
    chosen = np.sort(
        np.concatenate([np.flatnonzero(labels == label)[: args.per_class] for label in range(len(LABELS))])
    )
    rows = [{"id": f"train-{i:05}", "label": LABELS[labels[i]], "image": png(images[i])} for i in chosen]
    schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("image", pa.binary())])
    write_parquet(pa.Table.from_pylist(rows, schema), args.out / "images.parquet", dictionary=["label"], rows=2_500)
    if notice := next(args.data.rglob("*copyright"), None):
        (args.out / "LICENSE").write_text(notice.read_text())


if __name__ == "__main__":
    main()
