"""A small pipeline and what it gives, for tests of servers."""

import pyarrow as pa
from conftest import VECTORS

from prosampler import Pipeline

#: Two epochs of 32 mini-batches, with graphs that change at known steps.
RUN = {"refresh": {"every_steps": 10, "swap_after_steps": 3}, "seed": 5}


def pipeline(table, *, stream=None, **settings):
    return Pipeline(VECTORS, data=table, stream={"epochs": 2, **(stream or {})}, **{**RUN, **settings})


def facts(mini_batch):
    """All that a mini-batch has."""
    names = "ids negatives epoch step model_version graph_version staleness similarity is_warm_up digest counts"
    return [getattr(mini_batch, name) for name in names.split()], pa.record_batch(mini_batch)
