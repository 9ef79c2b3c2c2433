"""Writes the models that scripts/gpu-check.sh measures: `gpu_models.py FOLDER`. Needs the package `onnx`, no network.

Encoders of the shapes of MiniLM-L6 and BERT-base, and a small one to rehearse with, each in f32 and f16. A file is some
kilobytes: weights are sines of products of their places, which ONNX Runtime works out once, when it opens the model. The
vectors mean nothing, but are as good as any to measure with, and to compare providers by.
"""

import sys
from pathlib import Path

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

#       layers, d, heads, inner
SHAPES = {"minilm": (6, 384, 12, 1536), "bert": (12, 768, 12, 3072), "small": (2, 64, 4, 128)}
VOCABULARY, POSITIONS = 30522, 512


class Builder:
    """Nodes and constants of one model; `half` says what its weights and inner values are."""

    def __init__(self, half):
        self.half, self.nodes, self.constants, self.weights = half, [], [], 0
        self.element = TensorProto.FLOAT16 if half else TensorProto.FLOAT

    def add(self, operator, *inputs, **attributes):
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values, dtype):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.array(values, dtype), name))
        return name

    def integers(self, *values):
        return self.constant(values, numpy.int64)

    def number(self, value):
        return self.constant(value, numpy.float16 if self.half else numpy.float32)

    def matrix(self, rows, columns, scale):
        """[rows, columns]: sin((i + 1) (j + 1) f) times `scale`, f another for each."""
        self.weights += 1
        single = lambda value: self.constant(value, numpy.float32)
        row = self.add("Range", single(1), single(rows + 1), single(1))
        column = self.add("Range", single(1), single(columns + 1), single(1))
        row = self.add("Mul", self.add("Unsqueeze", row, self.integers(1)), single(0.37 + 0.011 * self.weights))
        sines = self.add("Mul", self.add("Sin", self.add("Mul", row, column)), single(scale))
        return self.add("Cast", sines, to=self.element) if self.half else sines

    def linear(self, x, inputs, outputs):
        bias = self.constant(numpy.zeros(outputs), numpy.float16 if self.half else numpy.float32)
        return self.add("Add", self.add("MatMul", x, self.matrix(inputs, outputs, (2 / inputs) ** 0.5)), bias)

    def norm(self, x, d):
        dtype = numpy.float16 if self.half else numpy.float32
        scale, bias = self.constant(numpy.ones(d), dtype), self.constant(numpy.zeros(d), dtype)
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def layer(self, x, bias, d, heads, inner):
        split, joined = self.integers(0, 0, heads, d // heads), self.integers(0, 0, d)
        query, key, value = (self.add("Reshape", self.linear(x, d, d), split) for _ in range(3))
        query, value = (self.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
        key = self.add("Transpose", key, perm=[0, 2, 3, 1])
        scores = self.add("Div", self.add("MatMul", query, key), self.number((d // heads) ** 0.5))
        weights = self.add("Softmax", self.add("Add", scores, bias), axis=-1)
        states = self.add("Transpose", self.add("MatMul", weights, value), perm=[0, 2, 1, 3])
        x = self.norm(self.add("Add", self.linear(self.add("Reshape", states, joined), d, d), x), d)
        states = self.linear(x, d, inner)
        error = self.add("Erf", self.add("Div", states, self.number(2**0.5)))
        states = self.add("Mul", self.add("Mul", states, self.add("Add", error, self.number(1))), self.number(0.5))
        return self.norm(self.add("Add", self.linear(states, inner, d), x), d)


def model(layers, d, heads, inner, half):
    """`input_ids` and `input_ids_mask`, int64 [batch, length], to `sentence_embedding`, the mean of f32 [batch, d]."""
    b = Builder(half)
    length = b.add("Squeeze", b.add("Slice", b.add("Shape", "input_ids"), b.integers(1), b.integers(2)), b.integers(0))
    places = b.add("Range", b.constant(0, numpy.int64), length, b.constant(1, numpy.int64))
    words = b.add("Gather", b.matrix(VOCABULARY, d, 1.0), "input_ids")
    x = b.norm(b.add("Add", words, b.add("Gather", b.matrix(POSITIONS, d, 0.1), places)), d)
    mask = b.add("Cast", b.add("Unsqueeze", "input_ids_mask", b.integers(1, 2)), to=b.element)
    bias = b.add("Mul", b.add("Sub", b.number(1), mask), b.number(-10000))
    for _ in range(layers):
        x = b.layer(x, bias, d, heads, inner)
    mask = b.add("Cast", b.add("Unsqueeze", "input_ids_mask", b.integers(2)), to=TensorProto.FLOAT)
    states = b.add("Mul", b.add("Cast", x, to=TensorProto.FLOAT) if half else x, mask)
    sums = b.add("ReduceSum", states, b.integers(1), keepdims=0)
    mean = b.add("Div", sums, b.add("ReduceSum", mask, b.integers(1), keepdims=0))
    b.nodes.append(helper.make_node("Identity", [mean], ["sentence_embedding"]))
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("input_ids", "input_ids_mask")]
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", d])]
    graph = helper.make_graph(b.nodes, "encoder", inputs, outputs, b.constants)
    opset = [helper.make_opsetid("", 17)]
    built = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="prosampler")
    onnx.checker.check_model(built)
    return built


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, shape in SHAPES.items():
    for half in (False, True):
        onnx.save(model(*shape, half), folder / f"{name}-{'f16' if half else 'f32'}.onnx")
