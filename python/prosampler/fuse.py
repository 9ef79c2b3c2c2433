"""Rewrites exported models with ONNX Runtime's own operators."""

import logging
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

logger = logging.getLogger(__name__)

MASK = "attention_mask"
# The domain of ONNX Runtime's own operators.
OWN = "com.microsoft"


def forms(model: ir.Model) -> Iterator[ir.Model]:
    """Forms of a model that should give the same, the fastest first, the model itself last. Each must be checked."""
    try:
        from onnxscript.rewriter.ort_fusions import optimize_for_ort

        fused, _ = optimize_for_ort(_copy(model))
        for node in (node for node in fused.graph if node.domain == OWN):
            # Results that nobody takes cost their memory all the same.
            taken = [place for place, out in enumerate(node.outputs) if out.uses() or out.is_graph_output()]
            node.resize_outputs(max([0, *taken]) + 1)
        by_length = _copy(fused)
        found = [by_length, fused] if _attend_by_length(by_length.graph) else [fused]
    except Exception as error:
        # It is there to make a model faster; without, the model is as good as before.
        logger.warning("the export stays as it is, it cannot be fused: %s", error)
        found = []
    yield from [*found, model]


def _copy(model: ir.Model) -> ir.Model:
    return ir.from_proto(ir.to_proto(model))


def _attend_by_length(graph: ir.Graph) -> bool:
    """Gives each attention the number of tokens instead of a bias for each pair of tokens, which takes memory.

    That is only right if the bias comes from a mask, and if the mask hides the end of a row. The check finds out about
    the first; rows with other masks get vectors of NaN. Returns whether there was anything to change.
    """
    attention = [n for n in graph if n.domain == OWN and n.op_type == "Attention" and len(n.inputs) > 5]
    mask = next((value for value in graph.inputs if value.name == MASK), None)
    if not attention or mask is None or mask.shape is None or mask.shape.rank() != 2 or len(graph.outputs) != 1:
        return False
    if len({node.inputs[5] for node in attention}) != 1:
        return False
    constants: list[ir.Value] = []

    def constant(value: Any, dtype: ir.DataType) -> ir.Value:
        name = f"by_length_{len(constants)}"
        tensor = ir.tensor(value, dtype=dtype, name=name)
        constants.append(ir.Value(name=name, const_value=tensor))
        return constants[-1]

    def whole(value: Any) -> ir.Value:
        return constant(value, ir.DataType.INT64)

    nodes: list[ir.Node] = []

    def add(operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(operator, inputs, attributes))
        return nodes[-1].outputs[0]

    # [B + B + 1 + B + 1]: the length of each row, and where rows begin, as queries and as keys.
    counted = add("Cast", mask, to=ir.DataType.INT64)
    lengths = add("ReduceSum", counted, whole([1]), keepdims=0)
    shape = add("Shape", mask)
    rows, tokens = (add("Gather", shape, whole(place)) for place in (0, 1))
    starts = add("Mul", add("Range", whole(0), add("Add", rows, whole(1)), whole(1)), tokens)
    index = add("Cast", add("Concat", lengths, starts, starts, axis=0), to=ir.DataType.INT32)

    # The first n places of a row, from 0 on, sum up to n (n - 1) / 2, and no other n of them do.
    places = add("Mul", counted, add("Range", whole(0), tokens, whole(1)))
    twice = add("Mul", add("ReduceSum", places, whole([1]), keepdims=0), whole(2))
    is_first = add("Equal", twice, add("Mul", lengths, add("Sub", lengths, whole(1))))
    number = ir.DataType.FLOAT
    nan = add("Where", is_first, constant(0.0, number), constant(float("nan"), number))
    axis = whole([1])

    for value in constants:
        graph.register_initializer(value)
    graph.insert_before(graph[0], nodes)
    for node in attention:
        node.replace_input_with(3, index)
        node.replace_input_with(5, None)
        node.resize_inputs(4)
    (output,) = graph.outputs
    plain = output.name
    output.name = f"{plain}_of_ends"
    column = ir.node("Unsqueeze", [nan, axis])
    guarded = ir.node("Add", [output, column.outputs[0]])
    graph.extend([column, guarded])
    result = guarded.outputs[0]
    result.name, result.type, result.shape = plain, output.type, output.shape
    graph.outputs[0] = result
    return True
