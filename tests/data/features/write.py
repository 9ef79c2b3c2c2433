"""Writes models and rows beside it, with what Python makes of them: `python3 tests/data/features/write.py`.

Needs onnx, onnxruntime, numpy, Pillow, pyarrow and tokenizers. Pillow decodes and resizes, tokenizers tokenises, and
onnxruntime gives the vectors that ours must equal.
"""

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as parquet
from onnx import TensorProto, checker, helper, numpy_helper, save
from PIL import Image
from tokenizers import Tokenizer

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
I32, I64, F16, F32, BOOL = (
    TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.BOOL,
)
rng = np.random.default_rng(7)
node = helper.make_node


def make(name, inputs, output, nodes, constants=None):
    value = helper.make_tensor_value_info
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()]
    graph = helper.make_graph(nodes, name, [value(*i) for i in inputs], [value(*output)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="prosampler tests")
    model.ir_version = 9
    checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


def run(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    declared = {i.name for i in session.get_inputs()}
    return session.run(None, {name: value for name, value in inputs.items() if name in declared})[0]


def floats(rows):
    return pa.array([np.asarray(row, np.float32).ravel() for row in rows], pa.list_(pa.float32()))


# Texts: pairs, and a prefix. Ids and types of the tokens say all.
tokenizer = Tokenizer.from_file(str(ROOT / "data/models/gloss-encoder/tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(24)
left = ["a dog", "a large body of salt water", "", "the act of moving " * 9, "naïve café — 東京"]
right = ["barks", "the ocean", "an empty one", "short", "a second text that is also rather long " * 3]
pairs = [tokenizer.encode(a, b) for a, b in zip(left, right)]
prefixed = [tokenizer.encode(f"query: {text}") for text in left]
encoder = ROOT / "data/models/gloss-encoder/model.onnx"


def embed(tokens):
    ids, mask, types = (np.array([x], np.int64) for x in (tokens.ids, tokens.attention_mask, tokens.type_ids))
    return run(encoder, input_ids=ids, attention_mask=mask, token_type_ids=types)[0]


parquet.write_table(
    pa.table(
        {
            "left": left,
            "right": right,
            "pair_ids": [p.ids for p in pairs],
            "pair_types": [p.type_ids for p in pairs],
            "pair_vector": floats([embed(p) for p in pairs]),
            "prefixed_ids": [p.ids for p in prefixed],
        }
    ),
    HERE / "pairs.parquet",
)

# Images: every format and kind of color that Pillow writes.
height, width = 23, 37
y, x = np.mgrid[0:height, 0:width]
smooth = np.stack([x * 6 + y, 255 - y * 9, (x * y) // 4], -1).clip(0, 255).astype(np.uint8)
noisy = rng.integers(0, 256, (height, width, 3), np.uint8)
alpha = np.concatenate([smooth, rng.integers(0, 256, (height, width, 1), np.uint8)], -1)


def encoded(pixels, mode=None, **options):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, **options)
    return file.getvalue()


images = {
    "png": encoded(noisy, format="PNG"),
    "png, gray": encoded(noisy, "L", format="PNG"),
    "png, alpha": encoded(alpha, format="PNG"),
    "png, palette": encoded(smooth, "P", format="PNG"),
    "png, one bit": encoded(smooth, "1", format="PNG"),
    "png, gray, alpha": encoded(alpha, "LA", format="PNG"),
    "png, palette, clear": encoded(smooth, "P", format="PNG", transparency=3),
    "png, tall": encoded(noisy.transpose(1, 0, 2).copy(), format="PNG"),
    "webp, lossless": encoded(noisy, format="WEBP", lossless=True),
    "webp": encoded(smooth, format="WEBP", quality=90),
    "webp, alpha": encoded(alpha, format="WEBP", lossless=True, exact=True),
    "jpeg": encoded(smooth, format="JPEG", quality=90),
    "jpeg, full color": encoded(smooth, format="JPEG", quality=90, subsampling=0),
    "jpeg, gray": encoded(smooth, "L", format="JPEG", quality=90),
    "jpeg, progressive": encoded(smooth, format="JPEG", quality=90, progressive=True),
    "jpeg, cmyk": encoded(smooth, "CMYK", format="JPEG", quality=90),
}
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def exact(data, mode, size):
    image = Image.open(io.BytesIO(data)).convert(mode)
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32)
    return pixels.reshape(*size, -1).transpose(2, 0, 1) / 255


def cropped(data, side, crop):
    """torchvision's Resize, CenterCrop and Normalize."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    short, long = sorted(image.size)
    long = int(side * long / short)
    image = image.resize((side, long) if image.width <= image.height else (long, side), Image.Resampling.BILINEAR)
    left, top = (int(round((a - b) / 2.0)) for a, b in zip(image.size, crop[::-1]))
    image = image.crop((left, top, left + crop[1], top + crop[0]))
    return ((np.asarray(image, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


flat = [node("Flatten", ["pixel_values"], ["embedding"], axis=1)]
make("image_any", [("pixel_values", F32, ["b", 3, "h", "w"])], ("embedding", F32, ["b", "d"]), flat)
make("image_nhwc", [("pixel_values", F32, ["b", 8, 6, 3])], ("embedding", F32, ["b", "d"]), flat)
make("image_f16", [("pixels", F16, ["b", 1, 8, 6])], ("embedding", F16, ["b", "d"]),
     [node("Flatten", ["pixels"], ["embedding"], axis=1)])
kernel = rng.normal(size=(5, 3, 3, 3)).astype(np.float32)
make(
    "image_conv",
    [("pixel_values", F32, ["b", 3, 8, 6])],
    ("embedding", F32, ["b", 5]),
    [
        node("Conv", ["pixel_values", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["embedding"], axis=1),
    ],
    {"kernel": kernel},
)
stretched = [exact(data, "RGB", (8, 6)) for data in images.values()]
parquet.write_table(
    pa.table(
        {
            "name": list(images),
            "image": pa.array(list(images.values()), pa.binary()),
            "hf": pa.array([{"bytes": data, "path": None} for data in images.values()],
                           pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "stretched": floats(stretched),
            "gray": floats([exact(data, "L", (8, 6)) for data in images.values()]),
            "cropped": floats([cropped(data, 12, (9, 11)) for data in images.values()]),
            "vector": floats([run(HERE / "image_conv.onnx", pixel_values=s[None])[0] for s in stretched]),
        }
    ),
    HERE / "images.parquet",
)

# Raw pixels, small to large and large to small.
raw = rng.integers(0, 256, (4, 10, 7, 3), np.uint8)
raw_floats = rng.normal(size=(4, 5, 9)).astype(np.float32)
resized = [np.asarray(Image.fromarray(p).resize((6, 8), Image.Resampling.BILINEAR), np.float32) / 255 for p in raw]
resized_floats = [np.asarray(Image.fromarray(p).resize((6, 8), Image.Resampling.BILINEAR)) for p in raw_floats]
u8 = pa.uint8()
parquet.write_table(
    pa.table(
        {
            "flat": pa.array([p.ravel() for p in raw], pa.list_(u8)),
            "nested": pa.array(raw.tolist(), pa.list_(pa.list_(pa.list_(u8)))),
            "planes": pa.array(raw.transpose(0, 3, 1, 2).tolist(), pa.list_(pa.list_(pa.list_(u8, 7), 10), 3)),
            "floats": pa.array(raw_floats.tolist(), pa.list_(pa.list_(pa.float32()))),
            "resized": floats([p.transpose(2, 0, 1) for p in resized]),
            "resized_floats": floats(resized_floats),
        }
    ),
    HERE / "raw.parquet",
)

# Tensors: a ragged series with its mask, two categories, and pairs of numbers that give states.
table = rng.normal(size=(10, 3)).astype(np.float32)
make(
    "tensor",
    [("signal", F32, ["b", "t"]), ("signal_mask", I64, ["b", "t"]), ("codes", I32, ["b", 2]), ("gain", F32, ["b"])],
    ("embedding", F32, ["b", 5]),
    [
        node("Cast", ["signal_mask"], ["m"], to=F32),
        # Padding that is not masked would show: 1 is added before the mask.
        node("Add", ["signal", "one"], ["s"]),
        node("Mul", ["s", "m"], ["sm"]),
        node("ReduceSum", ["sm", "axis"], ["sum"], keepdims=1),
        node("ReduceSum", ["m", "axis"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("Gather", ["table", "codes"], ["rows"], axis=0),
        node("ReduceSum", ["rows", "axis"], ["coded"], keepdims=0),
        node("Unsqueeze", ["gain", "axis"], ["g"]),
        node("Concat", ["mean", "coded", "g"], ["embedding"], axis=1),
    ],
    {"axis": np.array([1], np.int64), "one": np.array(1, np.float32), "table": table},
)
for name, mask in [("tensor_states", "mask"), ("tensor_states_attention", "attention_mask")]:
    make(
        name,
        [("points", F32, ["b", "t", 2]), (mask, BOOL, ["b", "t"])],
        ("last_hidden_state", F32, ["b", "t", 3]),
        [
            node("Cast", [mask], ["m"], to=F32),
            node("Unsqueeze", ["m", "axis"], ["u"]),
            node("Concat", ["points", "u"], ["last_hidden_state"], axis=2),
        ],
        {"axis": np.array([2], np.int64)},
    )
lengths = [1, 5, 2, 9, 3, 3]
signals = [rng.normal(size=n).astype(np.float32) for n in lengths]
codes = rng.integers(0, 10, (len(lengths), 2))
gains = rng.normal(size=len(lengths)).astype(np.float32)
vectors = [
    run(HERE / "tensor.onnx", signal=s[None], signal_mask=np.ones((1, len(s)), np.int64),
        codes=c[None].astype(np.int32), gain=g[None])[0]
    for s, c, g in zip(signals, codes, gains)
]
parquet.write_table(
    pa.table(
        {
            "samples": pa.array([s.astype(np.float64) for s in signals], pa.list_(pa.float64())),
            "codes": pa.array(codes.astype(np.uint8).tolist(), pa.list_(pa.uint8(), 2)),
            "gain": gains,
            "points": pa.array([[[float(i), float(i * i)] for i in range(n)] for n in lengths],
                               pa.list_(pa.list_(pa.float32(), 2))),
            "vector": floats(vectors),
        }
    ),
    HERE / "tensors.parquet",
)


# Graphs: one layer of messages with edge attributes, summed for each graph.
def graph_model(name, x, extra, message, constants):
    make(
        name,
        [x, ("edge_index", I64, [2, "e"]), ("batch", I64, ["n"]), *extra],
        ("embedding", F32, ["g", 4]),
        [
            *message,
            node("Gather", ["edge_index", "zero"], ["sources"], axis=0),
            node("Gather", ["edge_index", "one"], ["targets"], axis=0),
            node("Gather", ["h", "sources"], ["sent"], axis=0),
            node("Add" if extra else "Identity", ["sent", "edges"] if extra else ["sent"], ["messages"]),
            node("Unsqueeze", ["targets", "last"], ["to"]),
            node("ScatterND", ["h", "to", "messages"], ["received"], reduction="add"),
            node("Relu", ["received"], ["states"]),
            node("ReduceMax", ["batch"], ["top"], keepdims=1),
            node("Add", ["top", "ones"], ["graphs"]),
            node("Concat", ["graphs", "four"], ["shape"], axis=0),
            node("ConstantOfShape", ["shape"], ["empty"]),
            node("Unsqueeze", ["batch", "last"], ["of"]),
            node("ScatterND", ["empty", "of", "states"], ["embedding"], reduction="add"),
        ],
        {
            "zero": np.array(0), "one": np.array(1), "last": np.array([1]), "ones": np.array([1]),
            "four": np.array([4]), **constants,
        },
    )


weights, edge_weights = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)
graph_model(
    "graph", ("x", F32, ["n", 3]), [("ptr", I64, ["p"]), ("edge_attr", F32, ["e", 2])],
    [node("MatMul", ["x", "weights"], ["h"]), node("MatMul", ["edge_attr", "edge_weights"], ["edges"])],
    {"weights": weights, "edge_weights": edge_weights},
)
kinds_table = rng.normal(size=(6, 4)).astype(np.float32)
graph_model(
    "graph_kinds", ("x", I64, ["n", 1]), [],
    [node("Gather", ["kinds", "x"], ["wide"], axis=0), node("Squeeze", ["wide", "last"], ["h"])],
    {"kinds": kinds_table},
)
graphs = []
for nodes, edges in [(4, 6), (1, 0), (9, 20), (2, 2), (5, 3)]:
    ends = rng.integers(0, nodes, (2, edges))
    features = rng.normal(size=(nodes, 3)).astype(np.float32)
    attributes = rng.normal(size=(edges, 2)).astype(np.float32)
    kinds = rng.integers(0, 6, nodes)
    alone = dict(edge_index=ends, batch=np.zeros(nodes, np.int64), ptr=np.array([0, nodes]))
    graphs.append(
        {
            "num_nodes": nodes, "node_features": features.tolist(), "flat_features": features.ravel().tolist(),
            "kinds": kinds.tolist(), "edge_sources": ends[0].tolist(), "edge_targets": ends[1].tolist(),
            "edge_attributes": attributes.tolist(),
            "vector": run(HERE / "graph.onnx", x=features, edge_attr=attributes, **alone)[0].tolist(),
            "kinds_vector": run(HERE / "graph_kinds.onnx", x=kinds[:, None], **alone)[0].tolist(),
        }
    )
f32 = pa.float32()
types = {
    "num_nodes": pa.int32(), "node_features": pa.list_(pa.list_(f32)), "flat_features": pa.list_(f32),
    "kinds": pa.list_(pa.int8()), "edge_sources": pa.list_(pa.int32()), "edge_targets": pa.large_list(pa.int64()),
    "edge_attributes": pa.list_(pa.list_(f32, 2)), "vector": pa.list_(f32), "kinds_vector": pa.list_(f32),
}
parquet.write_table(pa.Table.from_pylist(graphs, pa.schema(types)), HERE / "graphs.parquet")
