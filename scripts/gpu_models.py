"""Writes the models that scripts/gpu-check.sh measures: `gpu_models.py FOLDER`. Needs the packages of the Python tests.

They are BERT encoders of the shapes of MiniLM-L6 and BERT-base, and a small one to rehearse with, in f32 and f16,
exported as `prosampler.export.export_model` does for users. A file has some hundred kilobytes: weights are sines of
products of their indices, which ONNX Runtime computes once, when it opens the model. The vectors mean nothing, but
serve as well as any others to measure with and to compare providers.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))

import numpy
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from prosampler.export import export_model
from transformers import BertConfig, BertModel

#       layers, d, heads, inner
SHAPES = {"minilm": (6, 384, 12, 1536), "bert": (12, 768, 12, 3072), "small": (2, 64, 4, 128)}


class Encoder(torch.nn.Module):
    """The mean over the tokens that count."""

    def __init__(self, layers, d, heads, inner):
        super().__init__()
        config = BertConfig(
            hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner
        )
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, ids, mask):
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


def by_formula(model):
    """Replaces each large matrix [rows, columns] by sin((i + 1) (j + 1) f) times a scale, f another for each."""
    graph = model.graph
    kept, nodes = [], []

    def add(operator, *inputs, **attributes):
        output = f"formula_{len(nodes)}"
        nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(values, dtype=numpy.float32):
        name = f"formula_constant_{len(kept)}"
        kept.append(numpy_helper.from_array(numpy.array(values, dtype), name))
        return name

    def is_large(tensor):
        return len(tensor.dims) == 2 and tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)

    # By name, for in 16 bits they may stand in another order.
    numbers = {name: number for number, name in enumerate(sorted(t.name for t in graph.initializer if is_large(t)))}
    for tensor in graph.initializer:
        if not is_large(tensor):
            kept.append(tensor)
            continue
        (rows, columns), number = tensor.dims, numbers[tensor.name]
        row, column = (add("Range", constant(1), constant(n + 1), constant(1)) for n in (rows, columns))
        row = add("Mul", add("Unsqueeze", row, constant([1], numpy.int64)), constant(0.37 + 0.011 * number))
        # As large as those of a model at the start of its training would be, were its inner values to stay of size 1.
        scale = 1.0 if rows > 20_000 else 0.1 if rows == 512 else (2 / rows) ** 0.5
        sines = add("Mul", add("Sin", add("Mul", row, column)), constant(scale))
        add("Cast", sines, to=tensor.data_type)
        nodes[-1].output[0] = tensor.name
    body = [*nodes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(body)
    onnx.checker.check_model(model)
    return model


folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
ids = torch.randint(0, 30_000, (3, 16))
mask = (torch.arange(16) < torch.tensor([[16], [9], [12]])).long()
for name, shape in SHAPES.items():
    for half in (False, True):
        path = folder / f"{name}-{'f16' if half else 'f32'}.onnx"
        inputs = {"input_ids": ids, "attention_mask": mask}
        export_model(
            Encoder(*shape), path, inputs, dynamic_axes=dict.fromkeys(inputs, (1,)), normalize=False, fp16=half,
            tolerance=0.1 if half else 1e-3,
        )
        onnx.save(by_formula(onnx.load(path)), path)
