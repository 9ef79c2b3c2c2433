"""A linear encoder and its export in milliseconds, for tests that train often."""

import os
from pathlib import Path

import onnx
import torch
from conftest import SMALL
from onnx import TensorProto, helper, numpy_helper


#: Settings with which a run embeds the column `vector` by the export in a folder.
def settings(folder, **more):
    encode = {"model": Path(folder) / "model.onnx", "feature": "tensor", "column": "vector"}
    return {**SMALL, "encode": encode, "source": {"columns": ["vector"]}, **more}


class Encoder(torch.nn.Module):
    """Sixteen numbers to eight, with a loss that notes which samples it has seen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(16, 8, bias=False)
        self.seen = []

    def forward(self, id, vector):
        self.seen.append(id.tolist())
        views = [self.linear(vector + 0.1 * torch.randn(vector.shape)) for _ in range(2)]
        one, two = (torch.nn.functional.normalize(view, dim=-1) for view in views)
        return {"loss": torch.nn.functional.cross_entropy(one @ two.T / 0.1, torch.arange(len(id)))}


class Steady(Encoder):
    """Learns the same whatever its mini-batches are, and so with any number of processes."""

    def forward(self, id, vector):
        self.seen.append(id.tolist())
        return {"loss": (self.linear.weight * torch.arange(128.0).sin().reshape(8, 16)).sum()}


def export(model, path, **_):
    """What ``prosampler.export.export_model`` does, for an ``Encoder``."""
    weights = numpy_helper.from_array(model.linear.weight.detach().numpy().T.copy(), "weights")
    nodes = [
        helper.make_node("MatMul", ["vector", "weights"], ["raw"]),
        helper.make_node("LpNormalization", ["raw"], ["embedding"], axis=-1, p=2),
    ]
    into = [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", 16])]
    out = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 8])]
    graph = helper.make_graph(nodes, "encoder", into, out, [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".incoming-{os.getpid()}.onnx")
    onnx.save(made, incoming)
    os.replace(incoming, path)
    return path


class Rows(torch.utils.data.Dataset):
    """The map-style data set in the order of the source."""

    def __init__(self, table):
        self.vectors = torch.tensor(table["vector"].to_pylist())

    def __len__(self):
        return len(self.vectors)

    def __getitem__(self, id):
        return {"id": id, "vector": self.vectors[id]}
