"""Makes the tiny ONNX models beside it: `python3 tests/data/models.py` (needs the `onnx` package)."""

from pathlib import Path

from onnx import TensorProto, checker, helper, numpy_helper, save
import numpy as np

HERE = Path(__file__).parent
I32, I64, F32 = TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT


def make(name, inputs, outputs, nodes, constants=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [value(*i) for i in inputs],
        [value(*o) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="prosampler tests")
    model.ir_version = 9
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


node = helper.make_node
axis = ("axis", np.array([2], np.int64))

# The state of a token is (its id, 1 if attended to, its type): pooled vectors are known by hand.
make(
    "states",
    [("input_ids", I64, ["b", "s"]), ("attention_mask", I32, ["b", "s"]), ("token_type_ids", I64, ["b", "s"])],
    [("last_hidden_state", F32, ["b", "s", 3])],
    [
        *[
            n
            for i in ("input_ids", "attention_mask", "token_type_ids")
            for n in (node("Cast", [i], [f"{i}_f"], to=F32), node("Unsqueeze", [f"{i}_f", "axis"], [f"{i}_3d"]))
        ],
        node("Concat", ["input_ids_3d", "attention_mask_3d", "token_type_ids_3d"], ["last_hidden_state"], axis=2),
    ],
    [axis],
)

# Takes pixels, not text.
make("pixels", [("pixel_values", F32, ["b", 3])], [("sentence_embedding", F32, ["b", 3])],
     [node("Identity", ["pixel_values"], ["sentence_embedding"])])

# Takes an input that nobody can guess beside the text.
make("prompted", [("input_ids", I64, ["b", "s"]), ("prompt", F32, ["b", 1])], [("sentence_embedding", F32, ["b", 1])],
     [node("Identity", ["prompt"], ["sentence_embedding"])])

mean = [node("Cast", ["input_ids"], ["ids"], to=F32), node("ReduceMean", ["ids"], ["mean"], axes=[1], keepdims=1)]

# Gives two vectors, and no hint which one to take.
make("two_outputs", [("input_ids", I64, ["b", "s"])], [("a", F32, ["b", 1]), ("b", F32, ["b", 1])],
     [*mean, node("Identity", ["mean"], ["a"]), node("Neg", ["mean"], ["b"])])

# Gives no number: the logarithm of a negative one.
make("not_finite", [("input_ids", I64, ["b", "s"])], [("sentence_embedding", F32, ["b", 1])],
     [*mean, node("Neg", ["mean"], ["below"]), node("Log", ["below"], ["sentence_embedding"])])

# Asks for 4 · batch¹² bytes: 64 MiB for 4 samples, more than any machine has for 16. Gives its input.
make(
    "out_of_memory",
    [("x", F32, ["b", 3])],
    [("sentence_embedding", F32, ["b", 3])],
    [
        node("Shape", ["x"], ["shape"], start=0, end=1),
        node("Pow", ["shape", "twelve"], ["size"]),
        node("ConstantOfShape", ["size"], ["zeros"]),
        node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        node("Add", ["x", "zero"], ["sentence_embedding"]),
    ],
    [("twelve", np.array([12], np.int64))],
)
