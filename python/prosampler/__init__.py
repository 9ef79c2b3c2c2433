"""Hard-negative mini-batches for contrastive learning, drawn from the whole data set while the encoder is training.

>>> import prosampler
>>> pipeline = prosampler.Pipeline("pipelines/text.toml")
>>> for mini_batch in pipeline:
...     columns = mini_batch.to_torch()

``Pipeline`` takes a pipeline file, a dict, or keyword settings. The documentation of the Rust module
``prosampler::config`` describes every setting under the same name. ``connect`` takes mini-batches from the pipeline
that ``prosampler serve`` runs, on this machine or another. Adapters for trainers are modules of their own, so
that only what is used is imported:

- ``prosampler.torch``: a batch sampler and an ``IterableDataset`` for ``DataLoader``;
- ``prosampler.accelerate``: a batch sampler for loaders that ``Accelerator.prepare`` prepares;
- ``prosampler.sentence_transformers``, ``prosampler.transformers``, ``prosampler.lightning``: callbacks for these
  trainers, which export, save and log; ``prosampler.callbacks`` does the same for a training loop of one's own;
- ``prosampler.export``: the encoder under training as an ONNX file;
- ``prosampler.ray``: embedding and shards on a cluster, and mini-batches for workers of Ray Train;
- ``prosampler.mining``, ``prosampler.search``: explicit hard negatives of a data set, and the nearest of a corpus.
"""

from ._prosampler import Column, MiniBatch, RecordBatch, Refreshed, __version__
from .embedder import Embedder
from .errors import (
    ArgumentError,
    ClosedError,
    ConfigError,
    EncodeError,
    Error,
    ExportError,
    FileError,
    ForkError,
    ModelError,
    NotFoundError,
    OnnxRuntimeError,
    RankError,
    RefreshError,
    ServerError,
    SourceError,
    StateError,
    TaskDiedError,
)
from .handle import Refresh, RefreshHandle
from .pipeline import Pipeline
from .remote import RemotePipeline, connect
from .server import Server
from .stream import Stream, skip

__all__ = [
    "ArgumentError",
    "ClosedError",
    "Column",
    "ConfigError",
    "Embedder",
    "EncodeError",
    "Error",
    "ExportError",
    "FileError",
    "ForkError",
    "MiniBatch",
    "ModelError",
    "NotFoundError",
    "OnnxRuntimeError",
    "Pipeline",
    "RankError",
    "RecordBatch",
    "Refresh",
    "RefreshError",
    "RefreshHandle",
    "Refreshed",
    "RemotePipeline",
    "Server",
    "ServerError",
    "SourceError",
    "StateError",
    "Stream",
    "TaskDiedError",
    "__version__",
    "connect",
    "skip",
]
