"""The samplers that are compared.

| arm | |
|---|---|
| `uniform` | a plain shuffle |
| `knn` | nearest first on the graph of the nearest neighbors: the paper's kNN sampler |
| `paper` | the reference code's random walk: M = 1,000, K = 100, α = 0.2, overlapping epochs, no guards |
| `recommended` | this project's defaults for the kind of data |
"""

from .trial import Settings, Trial

ARMS = ("uniform", "knn", "paper", "recommended")

GRAPHS = {"every_steps": 100, "swap_after_steps": 20}
"""Every arm but `uniform` has a new graph so often, from fixed steps on: a trial can be repeated exactly."""

RECOMMENDED: dict[str, Settings] = {
    "pairs": {
        "graph": {"candidates": "4 %", "neighbors": 32},
        "walk": {"restart_probability": 0.2},
        "guards": {"distinct": ["anchor", "positive"]},
    },
}
"""By modality: what follows from the kind of data alone."""


def settings(name: str, trial: Trial) -> Settings:
    """What the arm `name` is for a trial's data; all but `uniform` begin with a warm-up of `WARM_UP` of the steps."""
    if name == "uniform":
        return {"walk": {"sampler": "uniform"}}
    chosen: Settings = {
        "knn": {"graph": {"candidates": "100 %", "neighbors": 32, "builder": "nn_descent"}, "walk": {"sampler": "knn"}},
        "paper": {
            "graph": {"candidates": min(1000, trial.rows - 1), "neighbors": 100},
            "walk": {"restart_probability": 0.2, "coverage": "paper"},
            "guards": {"duplicates": False},
        },
        "recommended": RECOMMENDED[trial.modality],
    }[name]
    walk = {**chosen.get("walk", {}), "warm_up": {"steps": int(trial.steps * WARM_UP)}}
    return {**chosen, "walk": walk, "refresh": GRAPHS}


WARM_UP = 2 / 15
"""The share of the steps that are uniform first."""


def arm(trial: Trial, name: str) -> Trial:
    """The trial with an arm's settings."""
    return trial.with_settings(name, **settings(name, trial))
