"""What the scripts of this folder share, but for `training.py`: the command line, writing of files, and measures."""

import argparse
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
DATA, MODELS = ROOT / "data", ROOT / "data" / "models"


def arguments(doc: str, **defaults: object) -> argparse.Namespace:
    """Reads the command line: an option for each default, of its type; a flag for each False."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        option = "--" + name.replace("_", "-")
        if default is False:
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(default), default=default, help=f"default: {default}")
    return parser.parse_args()


def held_out(key: str) -> bool:
    """One row in ten, by a hash of its id: never trained on, probed with."""
    return zlib.crc32(key.encode()) % 10 == 0


def write_parquet(table: pa.Table, path: Path, dictionary: list[str], rows: int = 16_384) -> None:
    """Writes `table` with zstd, `rows` a row group; the columns of `dictionary` have few values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table,
        path,
        row_group_size=rows,
        compression="zstd",
        compression_level=19,
        use_dictionary=dictionary,
        store_schema=False,
    )
    print(f"{len(table):,} rows, {path.stat().st_size / 1e6:.2f} MB -> {path}")


def write_lines(entries: Iterable[dict], path: Path) -> None:
    """Writes a JSON array, an entry a line."""
    path.write_text(
        "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n", encoding="utf-8"
    )


def rounded(vector: np.ndarray) -> list[float]:
    """A vector's numbers with the six digits that a reference keeps."""
    return [round(float(x), 6) for x in vector]


def knn_accuracy(
    vectors: np.ndarray, labels: np.ndarray, k: int = 10, bank: tuple[np.ndarray, np.ndarray] | None = None
) -> float:
    """Share of the rows of `vectors` [n, d] whose label [n] is the majority of their `k` nearest by dot product.

    These are among `bank`'s vectors [m, d] and labels [m], or else among `vectors` themselves, each without itself.
    """
    scores = vectors @ (bank[0] if bank else vectors).T
    known = bank[1] if bank else labels
    if bank is None:
        np.fill_diagonal(scores, -np.inf)
    nearest = np.argpartition(-scores, k, axis=1)[:, :k]
    rows = np.arange(len(labels))
    votes = np.zeros((len(labels), max(labels.max(), known.max()) + 1))
    for column in nearest.T:  # a tie goes to the label with the larger summed similarity
        votes[rows, known[column]] += 1 + 1e-3 * scores[rows, column]
    return float((votes.argmax(axis=1) == labels).mean())


def retrieval(queries: np.ndarray, documents: np.ndarray) -> dict[str, float]:
    """How well each of `queries` [n, d] finds its own among `documents` [n, d] by dot product."""
    scores = queries @ documents.T
    own = scores.diagonal()[:, None]
    rank = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2  # ties share the mean of their ranks
    return {
        "recall@1": float((rank <= 1).mean()),
        "recall@10": float((rank <= 10).mean()),
        "mrr": float((1 / rank).mean()),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of [n, d] at length one; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def write_probe(facts: dict, table: list[dict], path: Path) -> None:
    """Writes facts and table as JSON, and prints the table in Markdown; a nested dict becomes a column a key."""
    path.write_text(json.dumps(facts | {"encoders": table}, indent=1) + "\n")
    print(json.dumps(facts))
    flat = [
        {f"{key}: {k}" if isinstance(value, dict) else key: v for key, value in entry.items() for k, v in items(value)}
        for entry in table
    ]
    print("| " + " | ".join(flat[0]) + " |\n|---|" + "---:|" * (len(flat[0]) - 1))
    for entry in flat:
        print("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in entry.values()) + " |")


def items(value: object) -> Iterable[tuple]:
    return value.items() if isinstance(value, dict) else [(None, value)]
