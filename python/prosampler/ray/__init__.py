"""Ray: embedding and sharding on a cluster's nodes, and mini-batches for the workers of Ray Train.

>>> dataset = prosampler.ray.embed(ray.data.read_parquet("rows/"), "run.toml", concurrency=(1, 8), num_gpus=1)
>>> prosampler.ray.shards(dataset, "shards/", by="id", count=16)

and in the training function of each worker

>>> batches = prosampler.ray.HardNegativeIterator(vectors, shards="shards/")

Needs the extra ``prosampler[ray]``. Nothing here schedules work: Ray does, with its retries.
"""

from .data import embed, shards
from .train import HardNegativeIterator

__all__ = ["HardNegativeIterator", "embed", "shards"]
