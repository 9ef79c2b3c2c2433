"""GraphCL: two views of a graph should find each other. A graph isomorphism network (GIN) from scratch.

mutag, nci1, b3db   molecules; the last with all features of atoms as one tag
proteins            proteins as graphs of their secondary structure
imdb-b              actors who were in a film together; nodes have their degree as tag

As in the paper, all graphs are trained on, without labels. The score is the accuracy of a support vector machine on
what the layers add up to, before the head, by 10-fold cross-validation: `dev` and `test` split it differently.

As in GraphCL, C is chosen by cross-validation within the nine folds. To take seconds instead of minutes, features are
standardised, C is one of four values and not of seven (0.001 to 1000), and at most 800 graphs choose it.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC
from torch import Tensor, nn

from training import unit

from .graph_sets import SETS, Union, shapes, views
from .losses import LOSSES
from .task import Step, Task, in_parts, measure_again
from .trial import Trial

WIDTH, LAYERS = 32, 3
FOLDS = {"dev": 0, "test": 1}
"""The seeds of the folds."""
CS = [0.1, 1, 10, 100]
CHOOSING = 800


class Encoder(nn.Module):
    """A union of graphs -> `[graphs, 96]`: the sums over nodes after each layer."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.tags = nn.Embedding(tags, WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.BatchNorm1d(WIDTH))
            for _ in range(LAYERS)
        )
        width = LAYERS * WIDTH
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, whole: Union) -> Tensor:
        edges = torch.from_numpy(whole.edges)
        source, target = torch.cat([edges, edges.flip(0)], dim=1)
        graph = torch.from_numpy(whole.graph)
        nodes, sums = self.tags(torch.from_numpy(whole.tags)), []
        for layer in self.layers:
            nodes = layer(nodes.index_add(0, target, nodes.index_select(0, source)))
            sums.append(nodes.new_zeros(whole.graphs, WIDTH).index_add(0, graph, nodes))
        return torch.cat(sums, dim=1)

    def project(self, whole: Union) -> Tensor:
        """What the loss sees: `[graphs, 96]` of unit length."""
        return unit(self.head(self(whole)))


def open_task(trial: Trial, data: Path) -> Task:
    graphs = SETS[trial.data](data)
    training = np.random.default_rng(0).permutation(len(graphs))[: trial.rows]
    model = Encoder(graphs.tags.max() + 1)
    loss = LOSSES[trial.loss]

    def embed(rows: np.ndarray) -> Tensor:
        return model.project(graphs.union(training[rows]))

    def step(rows: np.ndarray, number: int) -> Step:
        own = training[rows]
        both = views(graphs.union(np.concatenate([own, own])), np.random.default_rng([trial.seed, number]))
        a, b = model.project(both).chunk(2)
        return Step(loss(a, b, trial.temperature), unit(a + b).detach(), alike(graphs.labels[own]))

    def score(name: str) -> dict[str, float]:
        measure_again(model, lambda rows: model(graphs.union(training[rows])), len(training))
        vectors = in_parts(lambda rows: model(graphs.union(rows)), np.arange(len(graphs)))
        vectors = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0).clip(min=1e-6)
        return {"accuracy": accuracy(vectors, graphs.labels, FOLDS[name])}

    columns = {"shape": shapes(graphs.union(training), LAYERS)}
    return Task(len(training), model, step, embed, score, columns)


def alike(labels: np.ndarray) -> float:
    """The share of pairs that have the same label."""
    counts, n = np.bincount(labels), len(labels)
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def accuracy(vectors: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """The mean accuracy over ten folds."""
    rng, found = np.random.default_rng(seed), []
    for training, held_out in StratifiedKFold(10, shuffle=True, random_state=seed).split(vectors, labels):
        some = rng.permutation(training)[:CHOOSING]
        search = GridSearchCV(SVC(), {"C": CS}, cv=5, refit=False).fit(vectors[some], labels[some])
        machine = SVC(**search.best_params_).fit(vectors[training], labels[training])
        found.append(machine.score(vectors[held_out], labels[held_out]))
    return float(np.mean(found))
