"""The samplers that are compared.

| arm | |
|---|---|
| `uniform` | a plain shuffle |
| `knn` | nearest first on the graph of the nearest neighbors: the paper's kNN sampler |
| `paper` | the reference code's random walk: M = 1,000, K = 100, α = 0.2, overlapping epochs, no guards |
| `recommended` | this project's defaults |

All but `uniform` begin with an epoch of uniform mini-batches, whose vectors make the first graph, and have a new graph
five times an epoch, at least 5 steps apart. Graphs are used from fixed steps on, so that a trial can be repeated
exactly.
"""

from .trial import Settings, Trial

ARMS = ("uniform", "knn", "paper", "recommended")
GRAPHS_PER_EPOCH, LEAST_STEPS = 5, 5

# What the defaults are for pairs and texts.
NEAREST: Settings = {
    "graph": {"candidates": "100 %", "neighbors": 32},
    "walk": {"restart_probability": 0.5},
}

RECOMMENDED: dict[str, Settings] = {
    "pairs": {**NEAREST, "guards": {"distinct": ["anchor", "positive"]}},
    "text": {**NEAREST, "guards": {"distinct": ["text"]}},
    "graph": {},
    "image": {"guards": {"distinct": ["image"]}},
}
"""The defaults by modality. Samples are vectors here, so that what they are positives of must be told."""


def settings(name: str, trial: Trial) -> Settings:
    """What the arm `name` is for a trial's data."""
    if name == "uniform":
        return {"walk": {"sampler": "uniform"}}
    # M and K of the reference code's command; of small data sets a tenth, or it would be the graph of the nearest.
    candidates = min(1000, trial.rows // 10)
    chosen: Settings = {
        "knn": {"graph": {"candidates": "100 %", "neighbors": 32, "builder": "nn_descent"}, "walk": {"sampler": "knn"}},
        "paper": {
            "graph": {"candidates": candidates, "neighbors": min(100, candidates)},
            "walk": {"restart_probability": 0.2, "coverage": "paper"},
            "guards": {"duplicates": False},
        },
        "recommended": RECOMMENDED[trial.modality],
    }[name]
    epoch = trial.rows // trial.batch
    every = max(LEAST_STEPS, epoch // GRAPHS_PER_EPOCH)
    return {
        **chosen,
        "walk": {**chosen.get("walk", {}), "warm_up": {"steps": epoch}},
        "refresh": {"every_steps": every, "swap_after_steps": every // 5},
    }


def arm(trial: Trial, name: str) -> Trial:
    """The trial with an arm's settings."""
    return trial.with_settings(name, **settings(name, trial))
