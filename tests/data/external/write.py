"""Makes the models beside it: `python3 tests/data/external/write.py` (needs the `onnx` package)."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
F32 = TensorProto.FLOAT


def external(name, location, shape=(2,), kind=F32):
    tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in [("offset", "0"), ("location", location), ("length", "8")]:
        tensor.external_data.add(key=key, value=value)
    return tensor


def constant(tensor):
    return helper.make_node("Constant", [], [tensor.name], value=tensor)


info = helper.make_tensor_value_info
kept = numpy_helper.from_array(np.ones(2, np.float32), "kept")
# It names a file, but its data are here: without `data_location` nobody looks there.
kept.external_data.add(key="location", value="unused.data")
sparse = helper.make_sparse_tensor(
    external("sparse", "sparse/values.data"), external("", "sparse/indices.data", kind=TensorProto.INT64), [9]
)
inner = helper.make_graph([constant(external("b", "branch.data"))], "inner", [], [info("b", F32, [2])])
nested = helper.make_node("If", ["c"], ["n"], then_branch=inner, else_branch=inner)
outer = helper.make_graph([nested], "outer", [], [info("n", F32, [2])])
graph = helper.make_graph(
    [helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer)],
    "everywhere",
    [info("c", TensorProto.BOOL, [])],
    [info("y", F32, [2])],
    [external("w", "shared.data"), external("x", "shared.data"), kept],
    sparse_initializer=[sparse],
)
function = helper.make_function(
    "own", "f", [], ["z"], [constant(external("z", "function.data"))], [helper.make_opsetid("", 17)]
)
model = helper.make_model(graph, functions=[function], opset_imports=[helper.make_opsetid("", 17)])
(HERE / "everywhere.onnx").write_bytes(model.SerializeToString())


# x · w, with w in files beside the model: once [1, 2, 3], in the newer ones [3, 2, 1], in one of another name, too.
def scaled(name, weights, location):
    (HERE / location).write_bytes(np.array(weights, np.float32).tobytes())
    weights = external("w", location, (3,))
    weights.external_data[2].value = "12"
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["sentence_embedding"])],
        "scaled",
        [info("x", F32, ["b", 3])],
        [info("sentence_embedding", F32, ["b", 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    (HERE / name).write_bytes(model.SerializeToString())


scaled("scaled.onnx", [1, 2, 3], "scaled.onnx_data")
scaled("renamed.onnx", [3, 2, 1], "renamed.onnx_data")
