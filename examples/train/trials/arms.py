"""The samplers that are compared."""

from .trial import Settings, Trial

UNIFORM: Settings = {"walk": {"sampler": "uniform"}}

GRAPH_EVERY = {"every_steps": 100, "swap_after_steps": 20}
"""Every arm but `uniform` has a new graph so often, from fixed steps on: trials can be repeated exactly."""


def arms(warm_up: int) -> dict[str, Settings]:
    """Settings by arm; all but `uniform` draw `warm_up` uniform mini-batches first."""
    start = {"warm_up": {"steps": warm_up}} if warm_up else {}
    return {
        "uniform": UNIFORM,
        "knn": {
            "graph": {"candidates": "100 %", "neighbors": 32, "builder": "nn_descent"},
            "walk": {"sampler": "knn", **start},
            "refresh": GRAPH_EVERY,
        },
        # M, K, α and t of the reference code's command.
        "paper": {
            "graph": {"candidates": 1000, "neighbors": 100},
            "walk": {"restart_probability": 0.2, "coverage": "paper", **start},
            "refresh": GRAPH_EVERY,
            "guards": {"duplicates": False},
        },
        "recommended": {
            "graph": {"candidates": "4 %", "neighbors": 32},
            "walk": {"restart_probability": 0.2, **start},
            "refresh": GRAPH_EVERY,
        },
    }


def arm(trial: Trial, name: str, warm_up: int) -> Trial:
    """The trial with an arm's settings."""
    return trial.with_settings(name, **arms(warm_up)[name])
