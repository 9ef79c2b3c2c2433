"""Writes models as people export them, and what Python makes of them: `python3 tests/data/exports/write.py`.

Needs onnx, onnxruntime, numpy, pyarrow and tokenizers. Tokenizers cuts and pads, and onnxruntime runs one text at a
time: ours must equal these vectors, whatever else is in a batch.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as parquet
from onnx import TensorProto, checker, helper, numpy_helper, save
from tokenizers import Tokenizer, models, pre_tokenizers, processors

HERE = Path(__file__).parent
BOOL, I8, U8, I32, I64 = (getattr(TensorProto, t) for t in ("BOOL", "INT8", "UINT8", "INT32", "INT64"))
BF16, F16, F32, F64 = (getattr(TensorProto, t) for t in ("BFLOAT16", "FLOAT16", "FLOAT", "DOUBLE"))
rng = np.random.default_rng(3)
node = helper.make_node
D, WORDS = 4, 20
TABLE = rng.normal(size=(WORDS + 5, D)).astype(np.float32)
# One word is far larger than the others.
TABLE[8] *= 40
POSITIONS = rng.normal(size=(40, D)).astype(np.float32)
TOKENS = {"axis": np.array([1]), "last": np.array([2]), "table": TABLE, "positions": POSITIONS}


def make(name, inputs, outputs, nodes, constants=None):
    value = helper.make_tensor_value_info
    used = {i for n in nodes for i in n.input}
    constants = {k: v for k, v in {**TOKENS, **(constants or {})}.items() if k in used}
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, name, [value(*i) for i in inputs], [value(*o) for o in outputs], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="prosampler tests")
    model.ir_version = 9
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


# Tokenizers: the same words, and what the file says of cutting and filling up.
def tokenizer(name, tweak=lambda t: None):
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "<fill>": 4}
    vocabulary = special | {f"w{i}": len(special) + i for i in range(WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tweak(made)
    made.save(str(HERE / f"{name}.json"), pretty=False)


FILL = dict(pad_id=4, pad_type_id=1, pad_token="<fill>")
tokenizer("plain")
tokenizer("cut_left", lambda t: t.enable_truncation(6, direction="left", stride=2))
tokenizer("only_first", lambda t: t.enable_truncation(6, strategy="only_first"))
tokenizer("only_second", lambda t: t.enable_truncation(6, strategy="only_second", direction="left"))
tokenizer("fill_left", lambda t: t.enable_padding(direction="left", **FILL))
tokenizer("fill_to_12", lambda t: t.enable_padding(length=12, **FILL))
tokenizer("fill_by_4", lambda t: t.enable_padding(pad_to_multiple_of=4, direction="left", **FILL))

texts = [" ".join(f"w{(7 * i + 3 * j) % WORDS}" for j in range(1 + 5 * i % 9)) for i in range(24)]
others = [" ".join(f"w{(3 * i + j) % WORDS}" for j in range(2 + i % 4)) for i in range(24)]
columns = {"text": texts, "other": others}


def tokens(name="plain", most=128, pairs=False, padding=False):
    """Of each text alone."""
    used = Tokenizer.from_file(str(HERE / f"{name}.json"))
    if not padding:
        used.no_padding()
    cut = used.truncation or {}
    used.enable_truncation(most, **{k: cut[k] for k in ("direction", "strategy", "stride") if k in cut})
    return [used.encode(a, b) if pairs else used.encode(a) for a, b in zip(texts, others)]


TYPES = {"int64": np.int64, "int32": np.int32, "bool": np.bool_, "float": np.float32, "float16": np.float16}


def run(name, encodings, output=0, rows=1, length=None, fill=0, pooling=None):
    """Each text alone, filled up to `length` if the model wants that, `rows` times if it wants so many."""
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])
    vectors = []
    for encoding in encodings:
        n = len(encoding.ids)
        filled = max((length or n) - n, 0)
        values = {
            "input_ids": encoding.ids + [fill] * filled,
            "attention_mask": encoding.attention_mask + [0] * filled,
            "token_type_ids": encoding.type_ids + [0] * filled,
            "position_ids": list(range(n + filled)),
            "use_cache_branch": [False],
        }
        given = {}
        for declared in session.get_inputs():
            dtype = TYPES[declared.type[7:-1]]
            if declared.name.startswith("past_key_values"):
                given[declared.name] = np.zeros((1, 2, 0, D // 2), dtype)
            elif declared.name == "use_cache_branch":
                given[declared.name] = np.array([False])
            else:
                given[declared.name] = np.array([values[declared.name.removesuffix(":0")]] * rows, dtype)
        found = session.run([session.get_outputs()[output].name], given)[0][0]
        counted = np.array(encoding.attention_mask, bool)
        if pooling:
            states = found[: len(counted)][counted]
            found = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        vectors.append(np.asarray(found, np.float32).ravel())
    return pa.array([v.tolist() for v in vectors], pa.list_(pa.float32()))


def ids(batch="b", length="s", kind=I64):
    return ("input_ids", kind, [batch, length])


def mask(batch="b", length="s", kind=I64):
    return ("attention_mask", kind, [batch, length])


look_up = node("Gather", ["table", "input_ids"], ["h"])
# The mean over the tokens that the mask keeps, [batch, D].
masked_mean = [
    node("Cast", ["attention_mask"], ["m"], to=F32),
    node("Unsqueeze", ["m", "last"], ["m3"]),
    node("Mul", ["h", "m3"], ["hm"]),
    node("ReduceSum", ["hm", "axis"], ["sum"], keepdims=0),
    node("ReduceSum", ["m", "axis"], ["count"], keepdims=1),
    node("Div", ["sum", "count"], ["mean"]),
]
every_mean = node("ReduceMean", ["h"], ["mean"], axes=[1], keepdims=0)
embedding = node("Tanh", ["mean"], ["sentence_embedding"])
vector = [("sentence_embedding", F32, ["b", D])]
states = [("last_hidden_state", F32, ["b", "s", D])]
# Every state knows of all tokens that the mask keeps.
mixed = [node("Unsqueeze", ["mean", "axis"], ["context"]), node("Add", ["h", "context"], ["last_hidden_state"])]

# Without a mask: pooled by the model, or not.
make("unmasked", [ids()], vector, [look_up, every_mean, embedding])
make("unmasked_states", [ids()], states, [look_up, every_mean, *mixed])
make("tensorflow", [("input_ids:0", I32, ["b", "s"])], vector,
     [node("Gather", ["table", "input_ids:0"], ["h"]), every_mean, embedding])
# With a mask that does not reach all it should.
ignored = [node("Cast", ["attention_mask"], ["m"], to=F32), node("ReduceMax", ["m"], ["top"], keepdims=0),
           node("Mul", ["h", "top"], ["hm"]), node("ReduceMean", ["hm"], ["mean"], axes=[1], keepdims=0)]
make("mask_ignored", [ids(), mask()], vector, [look_up, *ignored, embedding])
# Numbers of 8 bits, as large as the largest of the batch wants.
make("quantized", [ids(), mask()], vector,
     [look_up, node("DynamicQuantizeLinear", ["h"], ["q", "scale", "zero"]),
      node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
      *[helper.make_node(n.op_type, [{"h": "d"}.get(i, i) for i in n.input], list(n.output),
                         **{a.name: helper.get_attribute_value(a) for a in n.attribute}) for n in masked_mean],
      embedding])
for name, pairs in [("unmasked", {}), ("tensorflow", {}), ("mask_ignored", {}), ("quantized", {})]:
    columns[name] = run(name, tokens())
columns["unmasked filled to 12"] = run("unmasked", tokens("fill_to_12", padding=True))
columns["unmasked filled by 4"] = run("unmasked", tokens("fill_by_4", padding=True))
for pooling in ("mean", "cls", "last"):
    columns[f"unmasked_states {pooling}"] = run("unmasked_states", tokens(), pooling=pooling)

# Positions, given as an input or counted by the model from the first place, filled up or not.
by_input = [look_up, node("Gather", ["positions", "position_ids"], ["p"]), node("Add", ["h", "p"], ["hp"])]
by_place = [
    look_up,
    node("Shape", ["input_ids"], ["end"], start=1, end=2),
    node("Squeeze", ["end"], ["n"]),
    node("Range", ["zero", "n", "one"], ["places"]),
    node("Gather", ["positions", "places"], ["p"]),
    node("Add", ["h", "p"], ["hp"]),
]


def over_positions(nodes):
    return [helper.make_node(n.op_type, [{"h": "hp"}.get(i, i) for i in n.input], list(n.output),
                             **{a.name: helper.get_attribute_value(a) for a in n.attribute}) for n in nodes]


count = {"zero": np.int64(0), "one": np.int64(1)}
make("position_ids", [ids(), mask(), ("position_ids", I64, ["b", "s"])], states,
     [*by_input, *over_positions([*masked_mean, *mixed])])
make("places", [ids(), mask()], states, [*by_place, *over_positions([*masked_mean, *mixed])], count)
make("few_places", [ids(), mask()], states, [*by_place, *over_positions([*masked_mean, *mixed])],
     {**count, "positions": POSITIONS[:8]})
for name in ("position_ids", "places"):
    for pooling in ("mean", "cls", "last"):
        columns[f"{name} {pooling}"] = run(name, tokens(), pooling=pooling)
columns["few_places"] = run("few_places", tokens(most=8), pooling="mean")

# A decoder with empty caches, in types of its own.
heads = [
    node("Reshape", ["hm", "split"], ["k"]),
    node("Transpose", ["k"], ["heads"], perm=[0, 2, 1, 3]),
    node("Cast", ["past_key_values.0.key"], ["past"], to=F32),
    node("Concat", ["past", "heads"], ["all"], axis=2),
    node("Cast", ["all"], ["present.0.key"], to=F16),
    node("Concat", ["past_key_values.0.value", "heads"], ["present.0.value"], axis=2),
    node("ReduceSum", ["all", "last"], ["of_heads"], keepdims=0),
    node("Flatten", ["of_heads"], ["flat"], axis=1),
    node("Cast", ["use_cache_branch"], ["branch"], to=F32),
    node("Cast", ["position_ids"], ["pf"], to=F32),
    node("Mul", ["pf", "m"], ["pm"]),
    node("ReduceSum", ["pm", "axis"], ["ps"], keepdims=1),
    node("Add", ["flat", "branch"], ["fb"]),
    node("Add", ["fb", "ps"], ["hidden"]),
]
make(
    "decoder",
    [ids(kind=I32), mask(kind=BOOL), ("position_ids", I32, ["b", "s"]), ("use_cache_branch", BOOL, [1]),
     ("past_key_values.0.key", F16, ["b", 2, "past_sequence_length", D // 2]),
     ("past_key_values.0.value", F32, ["b", "heads", "past_sequence_length", D // 2])],
    [("present.0.key", F16, ["b", 2, "total", D // 2]), ("present.0.value", F32, ["b", 2, "total", D // 2]),
     ("hidden", F32, ["b", D])],
    [look_up, *masked_mean[:3], *heads],
    {"split": np.array([0, 0, 2, D // 2])},
)
columns["decoder"] = run("decoder", tokens(), output=2)

# Shapes that are fixed.
for name, batch, length in [("fixed_batch", 3, "s"), ("fixed_length", "b", 10), ("fixed", 2, 8)]:
    make(name, [ids(batch, length), mask(batch, length)], [("sentence_embedding", F32, [batch, D])],
         [look_up, *masked_mean, embedding])
    n = length if isinstance(length, int) else None
    rows = batch if isinstance(batch, int) else 1
    columns[name] = run(name, tokens(most=n or 128), rows=rows, length=n)
make("fixed_states", [ids(2, 8), mask(2, 8)], [("last_hidden_state", F32, [2, 8, D])], [look_up, *masked_mean, *mixed])
make("fixed_unmasked", [ids("b", 12)], vector, [look_up, every_mean, embedding])
columns["fixed_states"] = run("fixed_states", tokens(most=8), rows=2, length=8, pooling="mean")
columns["fixed_unmasked"] = run("fixed_unmasked", tokens(most=12), length=12)
columns["fixed_unmasked filled"] = run("fixed_unmasked", tokens(most=12), length=12, fill=4)

# Outputs of many types and shapes: numbers that all of the types hold.
whole = [node("Mul", ["mean", "ten"], ["x"]), node("Clip", ["x", "low", "high"], ["c"])]
whole += [node("Round", ["c"], ["float32"])]
kinds = {"float64": F64, "bfloat16": BF16, "float16": F16, "uint8": U8, "int8": I8, "int32": I32, "int64": I64}
shapes = {"tail": [D, 1, 1], "thin": [D, 1], "flat": [1, D], "inner": [1, 1, D]}
make(
    "kinds",
    [ids(), mask()],
    [("float32", F32, ["b", D]), *[(name, kind, ["b", D]) for name, kind in kinds.items()],
     *[(name, F32, ["b", *shape]) for name, shape in shapes.items()], ("open", F32, ["b", "d", "one"])],
    [look_up, *masked_mean, *whole, *[node("Cast", ["float32"], [name], to=kind) for name, kind in kinds.items()],
     *[node("Reshape", ["float32", f"shape {name}"], [name]) for name in shapes],
     node("Reshape", ["float32", "shape thin"], ["open"])],
    {"ten": np.float32(10), "low": np.float32(0), "high": np.float32(100),
     **{f"shape {name}": np.array([0, *shape]) for name, shape in shapes.items()}},
)
columns["kinds"] = run("kinds", tokens())

# Which output is taken: each is the number of its place in all places.
for name, outputs in {
    "clip": ["last_hidden_state", "image_embeds", "text_embeds", "pooler_output"],
    "bert": ["pooler_output", "last_hidden_state"],
    "sentence": ["token_embeddings", "text_embeds", "sentence_embedding"],
    "bge": ["colbert_vecs", "sparse_vecs", "dense_vecs"],
}.items():
    wide = {"last_hidden_state", "token_embeddings", "colbert_vecs"}
    declared = [(o, F32, ["b", "s", D] if o in wide else ["b", D]) for o in outputs]
    nodes = [look_up, *masked_mean, node("Mul", ["h", "none"], ["h0"]), node("Mul", ["mean", "none"], ["m0"])]
    nodes += [node("Add", ["h0" if o in wide else "m0", str(place)], [o]) for place, o in enumerate(outputs)]
    make(f"outputs_{name}", [ids(), mask()], declared, nodes,
         {"none": np.float32(0), **{str(place): np.float32(place) for place in range(len(outputs))}})
    pixels = [("pixel_values", F32, ["b", 3, 4, 4])]
    if name in ("clip", "bert"):
        nodes = [node("Flatten", ["pixel_values"], ["flat"], axis=1), node("ReduceMean", ["flat"], ["m"], axes=[1]),
                 node("Unsqueeze", ["m", "axis"], ["w"]), node("Mul", ["m", "none"], ["m0"]),
                 node("Mul", ["w", "none"], ["w0"])]
        nodes += [node("Add", ["w0" if o in wide else "m0", str(place)], [o]) for place, o in enumerate(outputs)]
        declared = [(o, F32, ["b", 1, 1] if o in wide else ["b", 1]) for o in outputs]
        make(f"outputs_{name}_image", pixels, declared, nodes,
             {"none": np.float32(0), **{str(place): np.float32(place) for place in range(len(outputs))}})

# What a tokenizer's file says of cutting, in ids and types.
for name, most in [("cut_left", 9), ("only_first", 9), ("only_second", 13)]:
    columns[f"{name} pair"] = [t.ids for t in tokens(name, most=most, pairs=True)]
columns["cut_left"] = [t.ids for t in tokens("cut_left", most=6)]
columns["cut to 6"] = [t.ids for t in tokens(most=6)]

parquet.write_table(pa.table(columns), HERE / "texts.parquet")

# Numbers: without masks, with two lengths, with a fixed length and a mask, in f64.
mean_of = lambda x, y: node("ReduceMean", [x], [y], axes=[1], keepdims=1)
make("tensor_unmasked", [("a", F64, ["b", "t"])], [("embedding", F64, ["b", 1])], [mean_of("a", "embedding")])
make("tensor_two", [("a", F32, ["b", "t"]), ("a_mask", F32, ["b", "t"]), ("c", F32, ["b", "u"])],
     [("embedding", F32, ["b", 2])],
     [node("Mul", ["a", "a_mask"], ["am"]), node("ReduceSum", ["am", "axis"], ["as"], keepdims=1),
      mean_of("c", "cm"), node("Concat", ["as", "cm"], ["embedding"], axis=1)])
make("tensor_fixed", [("a", F32, [2, 8]), ("attention_mask", BOOL, [2, 8])], [("last_hidden_state", F32, [2, 8, 2])],
     [node("Cast", ["attention_mask"], ["m"], to=F32), node("Add", ["a", "m"], ["s"]),
      node("Unsqueeze", ["s", "last"], ["s3"]), node("Concat", ["s3", "s3"], ["last_hidden_state"], axis=2)])
lengths = [1, 5, 2, 8, 3, 3, 7, 1, 4]
a = [rng.normal(size=n) for n in lengths]
c = [rng.normal(size=1 + n % 3) for n in lengths]
one = pa.list_(pa.float64())
parquet.write_table(
    pa.table(
        {
            "a": pa.array([x.tolist() for x in a], one),
            "c": pa.array([x.tolist() for x in c], one),
            "unmasked": pa.array([[x.mean()] for x in a], one),
            "two": pa.array([[x.sum(), y.mean()] for x, y in zip(a, c)], one),
            "fixed": pa.array([[x.mean() + 1] * 2 for x in a], one),
        }
    ),
    HERE / "tensors.parquet",
)

# Graphs: without anything that tells them apart, and with a mean over all nodes of the batch.
graph = [("x", F32, ["n", 2]), ("edge_index", I64, [2, "e"])]
used = [node("Cast", ["edge_index"], ["ef"], to=F32), node("ReduceSum", ["ef"], ["edges"], keepdims=0)]
make("graph_alone", graph, [("embedding", F32, [1, 2])],
     [*used, node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1), node("Add", ["mean", "edges"], ["embedding"])])
make(
    "graph_mixed", [*graph, ("batch", I64, ["n"])], [("embedding", F32, ["g", 2])],
    [
        node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        node("Sub", ["x", "mean"], ["centered"]),
        node("Mul", ["centered", "centered"], ["squares"]),
        node("ReduceMax", ["batch"], ["top"], keepdims=1),
        node("Add", ["top", "axis"], ["graphs"]),
        node("Concat", ["graphs", "last"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["empty"]),
        node("Unsqueeze", ["batch", "axis"], ["of"]),
        node("ScatterND", ["empty", "of", "squares"], ["sums"], reduction="add"),
        node("Cast", ["edge_index"], ["ef"], to=F32), node("ReduceSum", ["ef"], ["edges"], keepdims=0),
        node("Mul", ["edges", "none"], ["nothing"]), node("Add", ["sums", "nothing"], ["embedding"]),
    ],
    {"none": np.float32(0)},
)
x = [rng.normal(size=(n, 2)) for n in (4, 1, 9, 2, 5)]
ends = [rng.integers(0, len(n), (2, e)) for n, e in zip(x, (6, 0, 20, 2, 3))]
parquet.write_table(
    pa.table(
        {
            "node_features": pa.array([n.tolist() for n in x], pa.list_(one)),
            "edge_sources": [e[0].tolist() for e in ends],
            "edge_targets": [e[1].tolist() for e in ends],
            "alone": pa.array([(n.mean(0) + e.sum()).tolist() for n, e in zip(x, ends)], one),
            "mixed": pa.array([((n - n.mean(0)) ** 2).sum(0).tolist() for n in x], one),
        }
    ),
    HERE / "graphs.parquet",
)
