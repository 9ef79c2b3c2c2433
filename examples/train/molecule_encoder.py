"""Trains the small graph encoder in `data/models/molecule-encoder` on B3DB, exports it to ONNX and probes it.

    python examples/train/molecule_encoder.py                 # train, export, probe
    python examples/train/molecule_encoder.py --probe-only    # probe the exported model

Makes, in `--out`:
    model.onnx      a disjoint union of graphs, in PyTorch Geometric's names, all int64:
                        x [nodes, 9], edge_index [2, edges], edge_attr [edges, 3], batch [nodes], ptr [graphs + 1]
                    -> embedding [graphs, 128] f32 of unit length
                    (weights stored as f16, computed in f32; the number of graphs is read from `ptr`)
    reference.json  five molecules by id, with their embeddings, to check another runtime against
    probe.json      the table that is printed at the end

The encoder is a graph isomorphism network with edge attributes (GINE): four rounds of messages, the sum over nodes
after each, and a linear map of these to 128 numbers. Training is contrastive, as in GraphCL: two random views of a
molecule should find each other among all views of a mini-batch. A view lacks a tenth to a third of the nodes, or keeps
what a random walk has seen, or has nodes or edges whose features are hidden. The head that the loss sees is left out of
the export. Labels take no part.

One molecule in ten, chosen by a hash of its id, is never trained on. The probe gives each of these the label of the
majority of its 10 nearest (cosine) among the molecules that were trained on, and says how alike their Morgan
fingerprints are.

Takes about 10 minutes on two CPU cores.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from common import DATA, MODELS, arguments, held_out, knn_accuracy, rounded, unit, write_lines, write_probe
from training import export, fit, nt_xent
from training import unit as unit_rows

WIDTH, ROUNDS = 128, 4
NODE_VALUES = [119, 9, 11, 12, 9, 5, 8, 2, 2]
EDGE_VALUES = [22, 6, 2]


class Graph(NamedTuple):
    """A molecule: `x` [nodes, 9], `edge_index` [2, edges], `edge_attr` [edges, 3], all int64."""

    x: np.ndarray
    edge_index: np.ndarray
    edge_attr: np.ndarray


def read(path: Path) -> tuple[pa.Table, list[Graph]]:
    """The rows and their graphs."""
    table = pq.read_table(path)
    columns = [table[name].to_pylist() for name in ("node_features", "edge_sources", "edge_targets", "edge_attributes")]
    return table, [
        Graph(
            np.array(nodes, np.int64),
            np.array([sources, targets], np.int64),
            np.array(attributes, np.int64).reshape(-1, 3),
        )
        for nodes, sources, targets, attributes in zip(*columns)
    ]


def union(graphs: list[Graph]) -> dict[str, np.ndarray]:
    """The disjoint union of graphs, as the model's inputs."""
    sizes = np.array([len(graph.x) for graph in graphs])
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return {
        "x": np.concatenate([graph.x for graph in graphs]),
        "edge_index": np.concatenate([graph.edge_index + start for graph, start in zip(graphs, ptr)], axis=1),
        "edge_attr": np.concatenate([graph.edge_attr for graph in graphs]),
        "batch": np.repeat(np.arange(len(graphs)), sizes),
        "ptr": ptr,
    }


def tensors(graphs: list[Graph]) -> list[Tensor]:
    return [torch.from_numpy(array) for array in union(graphs).values()]


def sum_rows(rows: Tensor, to: Tensor, count: Tensor) -> Tensor:
    """`rows` [n, d] added up where `to` [n] says, as [len(count), d].

    Exports as ScatterElements. ScatterND would be shorter, but ONNX Runtime adds it up on several threads that race.
    """
    zeros = torch.zeros_like(count)[:, None].expand(-1, rows.shape[1]).to(rows.dtype)
    return zeros.scatter_add(0, to[:, None].expand(-1, rows.shape[1]), rows)


class Categories(nn.Module):
    """Embeds rows of small numbers [n, columns] as the sum [n, 128] of an embedding a column, all in one table."""

    def __init__(self, values: list[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(sum(values), WIDTH) / len(values))
        self.register_buffer("offsets", torch.tensor([sum(values[:i]) for i in range(len(values))]))
        self.register_buffer("last", torch.tensor(values) - 1)

    def forward(self, rows: Tensor) -> Tensor:
        places = torch.minimum(rows, self.last) + self.offsets
        return self.table.index_select(0, places.flatten()).view(-1, rows.shape[1], WIDTH).sum(dim=1)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)
    )


class Encoder(nn.Module):
    """A disjoint union of graphs -> embeddings [graphs, 128] of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = Categories(NODE_VALUES)
        self.edges = nn.ModuleList(Categories(EDGE_VALUES) for _ in range(ROUNDS))
        self.rounds = nn.ModuleList(mlp() for _ in range(ROUNDS))
        self.out = nn.Linear(ROUNDS * WIDTH, WIDTH)
        self.head = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def features(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor, ptr: Tensor) -> Tensor:
        source, target = edge_index[0], edge_index[1]
        nodes, sums = self.nodes(x), []
        for edges, mix in zip(self.edges, self.rounds):
            messages = torch.relu(nodes[source] + edges(edge_attr))
            nodes = torch.relu(mix(nodes + sum_rows(messages, target, batch)))
            sums.append(sum_rows(nodes, batch, ptr[1:]))
        return self.out(torch.cat(sums, dim=1))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor, ptr: Tensor) -> Tensor:
        return unit_rows(self.features(x, edge_index, edge_attr, batch, ptr))

    def project(self, *inputs: Tensor) -> Tensor:
        """What the loss sees: [graphs, 128] of unit length."""
        return unit_rows(self.head(self.features(*inputs)))


def view(graph: Graph, rng: np.random.Generator) -> Graph:
    """A random view of a molecule: without some nodes, what a random walk has seen of it, or with features hidden."""
    n = len(graph.x)
    share = rng.uniform(0.1, 0.33)
    kind = rng.integers(3)
    if kind == 2 or n < 4:
        x = graph.x.copy()
        x[rng.random(n) < share] = 0  # what no atom has: atomic number 0
        edge_attr = graph.edge_attr.copy()
        edge_attr[rng.random(len(edge_attr)) < share] = 0
        return Graph(x, graph.edge_index, edge_attr)
    if kind == 0:
        keep = rng.random(n) >= share
        keep[rng.integers(n)] = True
    else:
        keep = walked(graph, int(np.ceil(n * (1 - share))), rng)
    source, target = graph.edge_index
    edges = keep[source] & keep[target]
    number = np.cumsum(keep) - 1
    return Graph(graph.x[keep], number[graph.edge_index[:, edges]], graph.edge_attr[edges])


def walked(graph: Graph, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Which nodes are in a connected piece that grows from a random node by random edges: [nodes] bool."""
    source, target = graph.edge_index
    keep = np.zeros(len(graph.x), bool)
    keep[rng.integers(len(keep))] = True
    for _ in range(wanted - 1):
        edges = np.flatnonzero(keep[source] & ~keep[target])
        if len(edges) == 0:
            break
        keep[target[rng.choice(edges)]] = True
    return keep


class Exported:
    """The exported model through ONNX Runtime."""

    def __init__(self, folder: Path) -> None:
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def __call__(self, graphs: list[Graph]) -> np.ndarray:
        """Embeddings [graphs, 128]."""
        return np.concatenate(
            [self.session.run(None, union(graphs[i : i + 256]))[0] for i in range(0, len(graphs), 256)]
        )


def export_checked(model: Encoder, folder: Path, ids: list[str], graphs: list[Graph]) -> None:
    """Writes model.onnx and reference.json, and holds ONNX Runtime against PyTorch on every tenth molecule."""
    nodes, edges, count = (torch.export.Dim(name) for name in ("nodes", "edges", "graphs_and_one"))
    axes = {"x": {0: nodes}, "edge_index": {1: edges}, "edge_attr": {0: edges}, "batch": {0: nodes}, "ptr": {0: count}}
    inputs = {name: torch.from_numpy(array) for name, array in union(graphs[:3]).items()}
    export(model, inputs, axes, "embedding", folder / "model.onnx")
    some, encoder = graphs[::10], Exported(folder)
    ours = encoder(some)
    with torch.no_grad():
        theirs = torch.cat([model(*tensors(some[i : i + 256])) for i in range(0, len(some), 256)]).numpy()
    alone = np.concatenate([encoder([graph]) for graph in some])
    to_torch, to_alone = np.abs(ours - theirs).max(), np.abs(ours - alone).max()
    print(f"{len(some)} molecules, largest differences: to torch {to_torch:.1e}, in a union to alone {to_alone:.1e}")
    assert to_torch <= 2e-3 and to_alone <= 1e-5
    chosen = [
        0,
        1,
        2,
        min(range(len(graphs)), key=lambda i: len(graphs[i].x)),
        max(range(len(graphs)), key=lambda i: len(graphs[i].x)),
    ]
    write_lines(
        ({"id": ids[i], "embedding": rounded(encoder([graphs[i]])[0])} for i in chosen), folder / "reference.json"
    )


def fingerprints(smiles: list[str]) -> np.ndarray:
    """Morgan fingerprints of radius 2 [molecules, 2048], f32 zeros and ones."""
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return np.stack([generator.GetFingerprintAsNumPy(Chem.MolFromSmiles(text)) for text in smiles]).astype(np.float32)


def tanimoto(scores: np.ndarray, queries: np.ndarray, bank: np.ndarray, k: int = 10) -> float:
    """Mean Tanimoto similarity of fingerprints `queries` [n, bits] and the `k` of `bank` [m, bits] that score best.

    `scores` are [n, m].
    """
    nearest = np.argpartition(-scores, k, axis=1)[:, :k]
    both = np.einsum("nb,nkb->nk", queries, bank[nearest])
    return float((both / (queries.sum(axis=1)[:, None] + bank.sum(axis=1)[nearest] - both)).mean())


def probe(table: pa.Table, graphs: list[Graph], encoder: Exported, path: Path) -> None:
    labels = np.unique(table["label"].to_numpy(), return_inverse=True)[1]
    held = np.array([held_out(i) for i in table["id"].to_pylist()])
    torch.manual_seed(0)
    untrained = Encoder().eval()
    with torch.no_grad():
        random = torch.cat([untrained(*tensors(graphs[i : i + 256])) for i in range(0, len(graphs), 256)]).numpy()
    atoms = np.stack([np.bincount(graph.x[:, 0], minlength=NODE_VALUES[0]) for graph in graphs]).astype(np.float32)
    bits = fingerprints(table["smiles"].to_pylist())
    encoders = {
        "molecule-encoder, 128": encoder(graphs),
        "the same, untrained, 128": random,
        "counts of elements, 119": unit(atoms),
        "Morgan fingerprints, 2048": unit(bits),
    }
    results = []
    for name, vectors in encoders.items():
        queries, bank = vectors[held], vectors[~held]
        accuracy = knn_accuracy(queries, labels[held], bank=(bank, labels[~held]))
        results.append(
            {"encoder": name, "knn_accuracy": accuracy, "tanimoto": tanimoto(queries @ bank.T, bits[held], bits[~held])}
        )
    facts = {"held_out": int(held.sum()), "trained_on": int((~held).sum())}
    facts["tanimoto_of_any"] = tanimoto(
        np.random.default_rng(0).random((held.sum(), (~held).sum())), bits[held], bits[~held]
    )
    facts["most_frequent_label"] = float(np.bincount(labels[held]).max() / held.sum())
    write_probe(facts, results, path)


def main() -> None:
    args = arguments(
        __doc__,
        data=DATA / "b3db/molecules.parquet",
        out=MODELS / "molecule-encoder",
        steps=800,
        batch=128,
        lr=1e-3,
        temperature=0.2,
        seed=0,
        threads=2,
        probe_only=False,
    )
    torch.set_num_threads(args.threads)
    table, graphs = read(args.data)
    ids = table["id"].to_pylist()
    if not args.probe_only:
        training = [graph for graph, i in zip(graphs, ids) if not held_out(i)]
        torch.manual_seed(args.seed)
        rng = np.random.default_rng(args.seed)
        model = Encoder()
        queue: list[np.ndarray] = []

        def loss() -> Tensor:
            if not queue:
                queue.extend(
                    np.split(rng.permutation(len(training)), range(args.batch, len(training), args.batch))[:-1]
                )
            chosen = [training[i] for i in queue.pop()]
            a, b = (model.project(*tensors([view(graph, rng) for graph in chosen])) for _ in range(2))
            return nt_xent(a, b, args.temperature)

        fit(model, loss, args.steps, args.lr)
        export_checked(model, args.out, ids, graphs)
    probe(table, graphs, Exported(args.out), args.out / "probe.json")


if __name__ == "__main__":
    main()
