"""Writes a model beside it: `python3 tests/data/values/write.py`. Needs onnx and numpy."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

I64, F32 = TensorProto.INT64, TensorProto.FLOAT
node, value = helper.make_node, helper.make_tensor_value_info

# Sums over the nodes of each graph, whatever the numbers of a node: their sum, one to four times.
graph = helper.make_graph(
    [
        node("ReduceSum", ["x", "ones"], ["sums"], keepdims=1),
        node("Mul", ["sums", "times"], ["states"]),
        node("ReduceMax", ["batch"], ["top"], keepdims=1),
        node("Add", ["top", "ones"], ["graphs"]),
        node("Concat", ["graphs", "four"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["empty"]),
        node("Unsqueeze", ["batch", "ones"], ["of"]),
        node("ScatterND", ["empty", "of", "states"], ["embedding"], reduction="add"),
    ],
    "graph_open",
    [value("x", F32, ["n", "f"]), value("edge_index", I64, [2, "e"]), value("batch", I64, ["n"])],
    [value("embedding", F32, ["g", 4])],
    [
        numpy_helper.from_array(np.array([[1, 2, 3, 4]], np.float32), "times"),
        numpy_helper.from_array(np.array([1]), "ones"),
        numpy_helper.from_array(np.array([4]), "four"),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="prosampler tests")
model.ir_version = 9
checker.check_model(model)
save(model, Path(__file__).parent / "graph_open.onnx")
