"""Runs the tasks of `gpu check` with PyTorch: `gpu_peer.py --out FOLDER --binary GPU --models FOLDER`.

The tasks are encoders of the same shapes over the same lengths (eager, scaled_dot_product_attention, f16 or on a CPU
f32), the graph by matmul and topk, and a training loop alone and beside a refresh. The script writes torch.json; if
torch is missing, it says so and stops.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

try:
    import torch
    from torch import nn
    from torch.nn.functional import gelu, scaled_dot_product_attention
except ImportError as reason:
    raise SystemExit(f"PyTorch is left out: {reason}") from None

#       layers, d, heads, inner
SHAPES = {"minilm": (6, 384, 12, 1536), "bert": (12, 768, 12, 3072), "small": (2, 64, 4, 128)}


class Layer(nn.Module):
    def __init__(self, d, heads, inner):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, inner), nn.Linear(inner, d)
        self.first, self.second = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x, mask):
        batch, length, d = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        states = scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(batch, length, d)
        x = self.first(x + self.out(states))
        return self.second(x + self.down(gelu(self.up(x))))


class Encoder(nn.Module):
    def __init__(self, layers, d, heads, inner):
        super().__init__()
        self.words, self.places, self.norm = nn.Embedding(30522, d), nn.Embedding(512, d), nn.LayerNorm(d)
        self.layers = nn.ModuleList(Layer(d, heads, inner) for _ in range(layers))

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.places.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        weights = mask[:, :, None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)


def timed(work, turns=3):
    """Seconds of the fastest turn, after one that does not count."""
    best = float("inf")
    for turn in range(turns + 1):
        synchronize()
        begun = time.perf_counter()
        work()
        synchronize()
        if turn:
            best = min(best, time.perf_counter() - begun)
    return best


def synchronize():
    if device == "cuda":
        torch.cuda.synchronize()


@torch.inference_mode()
def encode(shape, lengths):
    """Sorted by length in batches of 1,024 samples and 65,536 tokens, as ours are; vectors come back to the host."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    model = Encoder(*SHAPES[shape]).eval().to(device, dtype)
    batches, rest = [], []
    for first in range(0, len(lengths), 8192):
        rest = sorted(lengths[first : first + 8192], reverse=True)
        while rest:
            count = max(1, min(1024, 65536 // rest[0]))
            group, rest = rest[:count], rest[count:]
            ids = torch.randint(0, 30000, (len(group), group[0]))
            mask = torch.arange(group[0])[None, :] < torch.tensor(group)[:, None]
            batches.append((ids, mask))

    def work():
        for ids, mask in batches:
            model(ids.to(device, non_blocking=True), mask.to(device, non_blocking=True)).float().cpu()

    return {"samples_per_second": len(lengths) / timed(work)}


@torch.inference_mode()
def graph(samples, d, candidates, neighbors):
    """M shared candidates by blocks of 1,024 rows, and by blocks of 72 as ours.

    `there`: vectors lie on the device before, and results stay there. `and_back`: both lie on the host, as ours do.
    """
    host = torch.nn.functional.normalize(torch.randn(samples, d), dim=1)
    similarities = torch.zeros(samples, neighbors)
    ids = torch.zeros(samples, neighbors, dtype=torch.int32)

    def large(x, take):
        order = torch.randperm(samples, device=device)
        for first in range(0, samples, 1024):
            rows = order[first : first + 1024]
            drawn = torch.randint(0, samples, (candidates,), device=device)
            best, places = (x[rows] @ x[drawn].T).topk(neighbors, sorted=False)
            take(first, best, drawn[places])

    def small(x, take):
        order = torch.randperm(samples, device=device)
        rows = order[: samples // 72 * 72].view(-1, 72)
        for n, some in enumerate(rows.split(256)):
            drawn = torch.randint(0, samples, (len(some), candidates), device=device)
            best, places = torch.bmm(x[some], x[drawn].transpose(1, 2)).topk(neighbors, sorted=False)
            found = drawn.gather(1, places.flatten(1)).view_as(places)
            take(n * 256 * 72, best.flatten(0, 1), found.flatten(0, 1))

    def bring(first, best, found):
        # In the order of the rows: putting each in its place would cost a little more.
        similarities[first : first + len(best)].copy_(best)
        ids[first : first + len(best)].copy_(found.int())

    there = host.to(device)
    drop = lambda *_: None
    return {
        "blocks_of_1024": {
            "there": timed(lambda: large(there, drop), 2),
            "and_back": timed(lambda: large(host.to(device), bring), 2),
        },
        "blocks_of_72": {
            "there": timed(lambda: small(there, drop), 2),
            "and_back": timed(lambda: small(host.to(device), bring), 2),
        },
    }


@torch.inference_mode()
def peak(size):
    """Tera-operations a second of one large product in f16, on a CPU in f32."""
    dtype = torch.float16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = 20

    def work():
        for _ in range(times):
            a @ b

    return 2 * size**3 * times / timed(work) / 1e12


def training(binary, arguments, seconds):
    """Steps a second of a training loop, alone and while another process embeds with some share of the GPU."""
    dtype = torch.bfloat16
    shape = "small" if options.small else "minilm"
    model = Encoder(*SHAPES[shape]).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = 16 if options.small else 256
    ids = torch.randint(0, 30000, (batch, 64), device=device)
    mask = torch.ones_like(ids, dtype=torch.bool)

    def steps():
        done, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            with torch.autocast(device, dtype):
                vectors = nn.functional.normalize(model(ids, mask).float(), dim=1)
                loss = nn.functional.cross_entropy(vectors @ vectors.T / 0.05, torch.arange(batch, device=device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            synchronize()
            done += 1
        return done / (time.perf_counter() - begun)

    steps()
    alone = steps()
    found = {"steps_per_second": alone, "beside": {}, "slowdown_percent": {}}
    for share in (1.0, 0.5, 0.25, 0.1):
        command = [binary, "busy", *arguments, "--share", str(share), "--seconds", str(seconds + 2)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if process.stdout.readline().strip() != "ready":
                raise SystemExit("the refresh did not start")
            beside = steps()
            embedded = float(process.stdout.readline())
        # By the loop alone before and after, as clocks and neighbors change.
        before, alone = alone, steps()
        found["beside"][str(share)] = {"steps_per_second": beside, "alone": alone, "embedded_per_second": embedded}
        found["slowdown_percent"][str(share)] = 100 * ((before + alone) / 2 / beside - 1)
    return found


parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--binary", required=True)
parser.add_argument("--models", required=True)
parser.add_argument("--provider", default="cuda")
parser.add_argument("--small", action="store_true")
options = parser.parse_args()
device = "cuda" if options.provider == "cuda" else "cpu"
if device == "cuda" and not torch.cuda.is_available():
    raise SystemExit("PyTorch is left out: it sees no GPU")
found = {
    "version": torch.__version__,
    "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
    "encode": {},
    "graph": {},
}


def keep():
    (options.out / "torch.json").write_text(json.dumps(found, indent=2))


found["peak_tera_operations_per_second"] = peak(512 if options.small else 8192)
for file in sorted(options.out.glob("lengths-*.json")):
    shape = file.stem.removeprefix("lengths-")
    found["encode"][shape] = encode(shape, json.loads(file.read_text()))
    keep()
for d in (64,) if options.small else (384, 768):
    size = (4_000, d, 200, 20) if options.small else (1_000_000, d, 1000, 100)
    found["graph"][f"d{d}"] = graph(*size)
    keep()
passed = ["--models", options.models, "--out", str(options.out), "--provider", options.provider]
passed += ["--small"] if options.small else []
found["training"] = training(options.binary, passed, 2 if options.small else 8)
keep()
