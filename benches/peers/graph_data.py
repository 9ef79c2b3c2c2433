"""The real data of `benches/graph`: embeddings of 100,000 WordNet definitions by all-MiniLM-L6-v2, unit length.

`graph_data.py DIR` writes DIR/graph/minilm.f32, raw little-endian f32, 384 numbers a row. The model is quantised to
int8, which halves the time and leaves the vectors close to the f32 ones.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import tokenizers
from onnxruntime.quantization import QuantType, quantize_dynamic

import encode

ROWS = 100_000
BATCH = 8
THREADS = 2


def texts():
    definitions = pq.read_table("data/wordnet/glosses.parquet", columns=["definition"])["definition"].to_pylist()
    order = np.random.default_rng(7).permutation(len(definitions))[:ROWS]
    return [definitions[i] for i in order]


def main(folder):
    if not os.path.exists(f"{folder}/model.onnx"):
        encode.prepare(folder)
    model = f"{folder}/graph/model-int8.onnx"
    quantize_dynamic(f"{folder}/model.onnx", model, weight_type=QuantType.QInt8, per_channel=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    sessions = [onnxruntime.InferenceSession(model, options, providers=providers) for _ in range(THREADS)]
    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(128)
    # The file asks for 128 tokens always.
    tokenizer.no_padding()
    tokens = tokenizer.encode_batch(texts())
    order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i].ids))
    vectors = np.empty((len(tokens), 384), "<f4")

    def embed(session, batches):
        for rows in batches:
            longest = len(tokens[rows[0]].ids)
            ids = np.array([tokens[i].ids + [0] * (longest - len(tokens[i].ids)) for i in rows])
            mask = np.array([[1] * len(tokens[i].ids) + [0] * (longest - len(tokens[i].ids)) for i in rows])
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            states = session.run(None, feed)[0]
            means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[rows] = means / np.linalg.norm(means, axis=1, keepdims=True)

    begun = time.perf_counter()
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(embed, sessions, [batches[i::THREADS] for i in range(THREADS)]))
    print(f"{len(tokens) / (time.perf_counter() - begun):.0f} sentences/s")
    vectors.tofile(f"{folder}/graph/minilm.partial")
    os.replace(f"{folder}/graph/minilm.partial", f"{folder}/graph/minilm.f32")


if __name__ == "__main__":
    main(sys.argv[1])
