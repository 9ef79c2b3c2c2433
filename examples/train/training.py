"""What the trainings of this folder share: contrastive losses, the loop, and the export to ONNX."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F


def info_nce(a: Tensor, b: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Row i of `a` [n, d] should find row i of `b` [n, d] among all of `b`, and the reverse. Both of unit length.

    Pairs that `mask` [n, n] has as true are left out: they are no negatives.
    """
    scores, target = a @ b.T / temperature, torch.arange(len(a))
    if mask is not None:
        scores = scores.masked_fill(mask, -torch.inf)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def nt_xent(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss: each of 2n views should find its other among the 2n − 1 others. `a`, `b` [n, d] of unit length."""
    views = torch.cat([a, b])
    scores = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(scores, torch.arange(len(views)).roll(len(a)))


def unit(x: Tensor) -> Tensor:
    """Rows of [n, d] at length one; zeros stay zeros."""
    return x / x.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-9)


def fit(
    model: nn.Module,
    loss: Callable[[], Tensor],
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    every: int = 100,
    score: Callable[[], str] | None = None,
) -> None:
    """Takes `steps` steps of AdamW on what `loss` returns at each call; for a tenth of them the rate rises to `lr`.

    Prints the loss `every` so many steps, and what `score` says of the model, which is in evaluation mode meanwhile.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True)
    rise = max(0.1, 2 / steps)  # two steps at least, or it divides by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rise)
    began, mean_loss = time.time(), 0.0
    for step in range(steps):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss += (value.item() - mean_loss) / min(step + 1, 100)
        if (step + 1) % every == 0 or (score and step + 1 == steps):
            told = ""
            if score:
                model.eval()
                told = "  " + score()
                model.train()
            print(f"step {step + 1:5}  loss {mean_loss:.3f}  {time.time() - began:.0f} s{told}", flush=True)


def export(model: nn.Module, inputs: dict[str, Tensor], axes: dict[str, dict], output: str, path: Path) -> None:
    """Writes `model` as ONNX, opset 20, its weights as f16, each with a Cast that the runtime folds on loading.

    `inputs` are examples by name, in the order of the model's arguments; `axes` names the axes of each that may differ.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        model.eval(),
        tuple(inputs.values()),
        dynamo=True,
        opset_version=20,
        input_names=list(inputs),
        output_names=[output],
        dynamic_shapes=axes,
        optimize=True,
        verbose=False,
    )
    proto = program.model_proto
    graph, casts = proto.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= 64:
            name = tensor.name
            casts.append(helper.make_node("Cast", [name + ".f16"], [name], name=name + ".cast", to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + ".f16"))
    nodes = casts + list(graph.node)
    for node in nodes:  # no source lines, no paths
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for field in (graph, proto):
        field.ClearField("metadata_props")
        field.ClearField("doc_string")
    for value in [*graph.input, *graph.output]:
        value.ClearField("metadata_props")
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.name = path.parent.name
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB, opset {[o.version for o in proto.opset_import]}")
