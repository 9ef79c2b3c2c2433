"""Sets of graphs, kept as a few flat arrays so that a mini-batch is put together quickly, and GraphCL's views."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from common import DATA

HIDDEN = 0
"""The tag of a node whose own is hidden; those of nodes count from 1."""

RATIO = 0.2
NODES, EDGES, TAGS, SUBGRAPH = range(4)
"""What a view lacks: a fifth of the nodes, edges or tags, or all but a piece of four fifths of the nodes."""


class Union(NamedTuple):
    """The disjoint union of graphs; nodes of a graph follow each other."""

    tags: np.ndarray
    """`[nodes]`."""
    edges: np.ndarray
    """`[2, edges]`, each edge once."""
    graph: np.ndarray
    """Which graph a node is of: `[nodes]`."""
    graphs: int


class GraphSet:
    """A data set of graphs with labels."""

    def __init__(self, tags: np.ndarray, edges: np.ndarray, nodes: np.ndarray, ends: np.ndarray) -> None:
        """`tags` are small numbers of nodes, `edges` [2, edges] numbers within a graph; a graph has `nodes`, `ends`."""
        self.tags, self.edges = tags, edges
        self.first_node, self.first_edge = (np.concatenate([[0], np.cumsum(sizes)]) for sizes in (nodes, ends))
        self.labels = np.zeros(len(nodes), int)

    def __len__(self) -> int:
        return len(self.labels)

    def union(self, rows: np.ndarray) -> Union:
        nodes, sizes = places(self.first_node, rows)
        edges, edge_sizes = places(self.first_edge, rows)
        first = np.cumsum(sizes) - sizes
        return Union(
            self.tags[nodes],
            self.edges[:, edges] + np.repeat(first, edge_sizes),
            np.repeat(np.arange(len(rows)), sizes),
            len(rows),
        )


def places(first: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the parts of `rows` lie, if part i begins at `first[i]` and ends where the next begins; and their sizes."""
    sizes = first[rows + 1] - first[rows]
    return np.arange(sizes.sum()) + np.repeat(first[rows] - (np.cumsum(sizes) - sizes), sizes), sizes


def tu(path: Path, degrees: bool = False) -> GraphSet:
    """A set in the text format of DGCNN; with `degrees`, these are the tags of nodes."""
    lines = iter(path.read_text().splitlines())
    labels, nodes, ends, tags, edges = [], [], [], [], []
    for _ in range(int(next(lines))):
        size, label = map(int, next(lines).split())
        edges_before = len(edges)
        for node in range(size):
            tag, degree, *neighbors = map(int, next(lines).split())
            tags.append(degree if degrees else tag)
            edges += [(node, neighbor) for neighbor in neighbors if node < neighbor]
        labels.append(label)
        nodes.append(size)
        ends.append(len(edges) - edges_before)
    graphs = GraphSet(numbered(np.array(tags)), np.array(edges).T, np.array(nodes), np.array(ends))
    graphs.labels = numbered(np.array(labels)) - 1
    return graphs


def b3db(_: Path) -> GraphSet:
    """The molecules of `data/`; the nine features of an atom are one tag, those of bonds are left out."""
    table = pq.read_table(DATA / "b3db/molecules.parquet").combine_chunks()
    features = pc.list_flatten(pc.list_flatten(table["node_features"])).to_numpy().reshape(-1, 9)
    source, target = (pc.list_flatten(table[name]).to_numpy() for name in ("edge_sources", "edge_targets"))
    once = source < target
    of = pc.list_parent_indices(table["edge_sources"]).to_numpy()
    graphs = GraphSet(
        numbered(features),
        np.stack([source, target])[:, once].astype(np.int64),
        table["num_nodes"].to_numpy(),
        np.bincount(of[once], minlength=len(table)),
    )
    graphs.labels = numbered(table["label"].to_numpy().astype(str)) - 1
    return graphs


SETS = {
    "mutag": lambda data: tu(data / "graph/MUTAG.txt"),
    "proteins": lambda data: tu(data / "graph/PROTEINS.txt"),
    "nci1": lambda data: tu(data / "graph/NCI1.txt"),
    "imdb-b": lambda data: tu(data / "graph/IMDBBINARY.txt", degrees=True),
    "b3db": b3db,
}


def numbered(values: np.ndarray) -> np.ndarray:
    """A number for each of `values`, or each of its rows, from 1; equal for equal ones."""
    return np.unique(values, axis=0, return_inverse=True)[1].reshape(-1) + 1


def views(whole: Union, rng: np.random.Generator) -> Union:
    """A random view of each graph, of a random kind.

    A piece grows from a random node, each time by an edge that is drawn uniformly from those that lead out of it.
    """
    sizes = np.bincount(whole.graph, minlength=whole.graphs)
    first = np.cumsum(sizes) - sizes
    kind = rng.integers(4, size=whole.graphs)
    kind_of_node = kind[whole.graph]
    order = rng.random(len(whole.tags))
    starts = first + (rng.random(whole.graphs) * sizes).astype(int)
    in_piece = kind_of_node == SUBGRAPH
    order[in_piece] = reached(whole, starts[kind == SUBGRAPH], rng)[in_piece]
    rank = np.empty(len(order), int)
    rank[np.lexsort((order, whole.graph))] = np.arange(len(order))
    last = rank - first[whole.graph] >= (sizes - (RATIO * sizes).astype(int))[whole.graph]

    edges, of_edge = whole.edges.copy(), whole.graph[whole.edges[0]]
    moved = (kind[of_edge] == EDGES) & (rng.random(len(of_edge)) < RATIO)
    ends = rng.random((2, moved.sum())) * sizes[of_edge[moved]]
    edges[:, moved] = first[of_edge[moved]] + ends.astype(int)

    keep = ~(last & (in_piece | (kind_of_node == NODES)))
    edges = edges[:, keep[edges].all(axis=0)]
    tags = np.where(last & (kind_of_node == TAGS), HIDDEN, whole.tags)
    return Union(tags[keep], (np.cumsum(keep) - 1)[edges], whole.graph[keep], whole.graphs)


def reached(whole: Union, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """When a piece that grows from each of `starts` takes in a node, for all nodes; never is infinite.

    Edges take exponential times. As these have no memory, each edge that leads out of a piece is equally likely next.
    """
    times, nodes = rng.exponential(size=whole.edges.shape[1]), len(whole.tags)
    if len(starts) == 0:
        return np.full(nodes, np.inf)
    return dijkstra(coo_array((times, whole.edges), (nodes, nodes)).tocsr(), False, starts, min_only=True)


def shapes(whole: Union, rounds: int) -> pa.Array:
    """A number for each graph, equal for graphs that `rounds` rounds of Weisfeiler and Leman cannot tell apart.

    So no graph network of as many layers can, either. Isomorphic graphs are among them.
    """
    source, target = np.concatenate([whole.edges, whole.edges[::-1]], axis=1)
    colors = scrambled(whole.tags.astype(np.uint64))
    for _ in range(rounds):
        sums = np.zeros_like(colors)
        np.add.at(sums, target, colors[source])
        colors = scrambled(colors * np.uint64(3) + scrambled(sums))
    sums = np.zeros(whole.graphs, np.uint64)
    np.add.at(sums, whole.graph, colors)
    return pa.array(numbered(sums), pa.int64())


def scrambled(numbers: np.ndarray) -> np.ndarray:
    """Other numbers of 64 bits, one for one: the finalizer of SplitMix64."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
