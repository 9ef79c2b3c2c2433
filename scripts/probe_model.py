"""Writes src/encode/probe.onnx, the model by which `prosampler doctor` tries a provider. Needs the package `onnx`."""

from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

weight = numpy_helper.from_array(numpy.arange(16, dtype=numpy.float32).reshape(4, 4), "weight")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "weight"], ["y"])],
    "probe",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    [weight],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="prosampler")
onnx.checker.check_model(model, full_check=True)
onnx.save(model, Path(__file__).parent.parent / "src/encode/probe.onnx")
