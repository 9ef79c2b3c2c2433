"""Which trials answer which question."""

from collections.abc import Callable
from dataclasses import replace

from .arms import ARMS, NEAREST, arm
from .trial import Settings, Trial

# Learning rate and temperature are the best for `uniform` on `dev` of a few; docs/evidence.md says which were tried.
PACKAGES = Trial("pairs", "packages", "", encoder="bag", rows=16_000, batch=32, steps=5000, lr=2e-3, temperature=0.05)
MOLECULES = Trial("graph", "nci1", "", batch=128, lr=1e-2, temperature=0.2)
SENTENCES = Trial("text", "sentences", "", rows=16_000, batch=64, steps=750, lr=5e-4, temperature=0.05)
IMAGES = Trial("image", "", "", rows=16_000, batch=64, steps=750, lr=2e-3, temperature=0.2, loss="nt_xent")
BASES = {
    "pairs": [
        PACKAGES,
        replace(PACKAGES, encoder="transformer", steps=1500),
        replace(PACKAGES, data="wordnet", rows=32_000, steps=3000),
        replace(PACKAGES, data="verses", steps=1500),
    ],
    "graph": [
        replace(MOLECULES, data="nci1", rows=4110, steps=640),
        replace(MOLECULES, data="imdb-b", rows=1000, steps=140),
        replace(MOLECULES, data="proteins", rows=1113, steps=160),
        replace(MOLECULES, data="mutag", rows=188, batch=64, steps=40),
        replace(MOLECULES, data="b3db", rows=7805, steps=600),
    ],
    "text": [SENTENCES, replace(SENTENCES, data="minilm", rows=3200, steps=150, lr=2e-5)],
    "image": [
        replace(IMAGES, data="glyphs", temperature=0.1),
        replace(IMAGES, data="fashion"),
        replace(IMAGES, data="cifar10"),
        replace(IMAGES, data="fashion", rows=54_000, steps=2529),
        replace(IMAGES, data="cifar10", rows=45_000, steps=2109),
        replace(IMAGES, data="fashion10k", rows=8000, steps=375),
    ],
}
"""A trial for each data set and encoder, by modality; the first of each is the one that dials are tried on."""

SEEDS = {"mutag": 21, "proteins": 12}
"""Data sets whose scores scatter so much that they need more seeds."""

DIALS: dict[str, list[tuple[str, dict]]] = {
    "candidates": [
        (share, {"graph": {"candidates": share, "builder": "nn_descent" if share == "100 %" else "sampled"}})
        for share in ("0.5 %", "1 %", "4 %", "20 %", "100 %")
    ],
    "restart_probability": [(str(a), {"walk": {"restart_probability": a}}) for a in (0.05, 0.2, 0.5, 0.8)],
    "starts": [(str(n), {"walk": {"starts": n}}) for n in (1, 2, 4, 8)],
    "random_share": [(str(share), {"walk": {"random_share": share}}) for share in (0.0, 0.25, 0.5)],
    "warm_up": [(str(n), {"walk": {"warm_up": {"steps": n}}}) for n in (100, 250, 500, 1000)],
    "every_steps": [(str(n), {"refresh": {"every_steps": n}}) for n in (25, 100, 500)],
    "sampler": [(name, {"walk": {"sampler": name}}) for name in ("random_walk", "knn", "communities", "clusters")],
    "coverage": [(name, {"walk": {"coverage": name}}) for name in ("exact", "paper")],
    "guards": [
        ("none", {"guards": {"duplicates": False, "distinct": []}}),
        ("distinct", {"guards": {"distinct": ["anchor", "positive"]}}),
        ("near copies", {"guards": {"distinct": ["anchor", "positive"], "duplicate_similarity": 0.95}}),
        ("3 nearest", {"guards": {"distinct": ["anchor", "positive"], "skip_nearest": 3}}),
    ],
}
"""What the recommended arm becomes, by dial and value."""


def main(bases: list[Trial]) -> list[Trial]:
    """All arms on all data sets; these alone score the test split."""
    trials = [arm(base, name) for base in bases for name in ARMS]
    # Positives of a letter are other images of it, as those of pairs are.
    trials += [arm(base, "recommended").with_settings("as pairs", **NEAREST) for base in bases if base.data == "glyphs"]
    return [replace(trial, test=True) for trial in trials]


def hardness(bases: list[Trial]) -> list[Trial]:
    """Milder and harder mini-batches than the recommended arm's: of pairs on two sets, of text on the first."""
    everyone = {"candidates": "100 %", "builder": "nn_descent"}
    fifth = {"candidates": "20 %", "neighbors": 32}
    back, onward = {"walk": {"restart_probability": 0.5}}, {"walk": {"restart_probability": 0.1}}
    of_texts: dict[str, Settings] = {
        "M = N / 5, α = 0.1": {"graph": fifth, **onward},
        "M = N / 5, α = 0.5": {"graph": fifth, **back},
        "M = N / 5, K = 8, α = 0.1": {"graph": {**fifth, "neighbors": 8}, **onward},
        "M = N, α = 0.1": {"graph": everyone, **onward},
        "M = N, α = 0.5": {"graph": everyone, **back},
        "M = N, K = 8, α = 0.1": {"graph": {**everyone, "neighbors": 8}, **onward},
    }
    of_others: dict[str, Settings] = {
        "M = N / 5": {"graph": fifth},
        "M = N / 5, α = 0.5": {"graph": fifth, **back},
        "M = N, α = 0.5": NEAREST,
        "half uniform": {"walk": {"random_share": 0.5}},
        "four starts": {"walk": {"starts": 4}},
    }
    trials = []
    # Of text, the second is the one that is fine-tuned.
    for base in bases[: {"pairs": 2, "text": 1}.get(bases[0].modality)]:
        ours = arm(base, "recommended")
        harder = of_texts if base.modality in ("pairs", "text") else of_others
        trials += [arm(base, "uniform"), ours, arm(base, "knn")]
        trials += [ours.with_settings(name, **settings) for name, settings in harder.items()]
    return trials


def short(bases: list[Trial]) -> Trial:
    """The first trial, for three epochs at most."""
    return replace(bases[0], steps=min(bases[0].steps, 3 * bases[0].rows // bases[0].batch))


def batch(bases: list[Trial]) -> list[Trial]:
    """Batch sizes at equal steps, and at equal samples seen: which size of uniform mini-batches equals ours at 32?"""
    base = short(bases)
    trials = []
    for size in (16, 32, 64, 128, 256):
        steps = {base.steps, base.steps * base.batch // size}
        for name in ("uniform", "recommended"):
            trials += [arm(replace(base, batch=size, steps=n), name) for n in sorted(steps)]
    return trials


def dials(bases: list[Trial]) -> list[Trial]:
    """One dial of the recommended arm at a time, on the first data set, for three epochs."""
    base = short(bases)
    ours = arm(base, "recommended")
    changed = [ours.with_settings(f"{dial} {value}", **new) for dial, of in DIALS.items() for value, new in of]
    fresh = [replace(ours, arm=f"embed_steps {n}", embed_steps=n) for n in (100, 500)]
    carried = [
        replace(ours.with_settings(f"every_steps {n}, carried", refresh={"every_steps": n}), carry=True)
        for n in (25, 100, 500)
    ]
    return [arm(base, "uniform"), ours, *changed, *fresh, *carried]


def losses(bases: list[Trial]) -> list[Trial]:
    """The debiased losses that the paper has beside InfoNCE, at a temperature at which they can work."""
    base = short(bases)
    return [
        arm(replace(base, loss=loss, temperature=max(base.temperature, 0.2)), name)
        for loss in ("nt_xent", "dcl", "hcl")
        for name in ("uniform", "recommended")
    ]


def tune(bases: list[Trial]) -> list[Trial]:
    """Learning rates and temperatures for all arms, on the first data set."""
    base = short(bases)
    return [
        replace(arm(base, name), lr=base.lr * rate, temperature=base.temperature * heat)
        for name in ARMS
        for rate, heat in ((1, 1), (0.5, 1), (2, 1), (1, 0.5), (1, 2))
    ]


PLANS: dict[str, Callable[[list[Trial]], list[Trial]]] = {
    "main": main,
    "hardness": hardness,
    "batch": batch,
    "dials": dials,
    "tune": tune,
    "losses": losses,
}


def trials(modality: str, plan: str, seeds: int) -> list[Trial]:
    """The trials of a plan, all of the first seed before those of the next."""
    if plan not in PLANS:
        raise SystemExit(f"--plan is `{plan}`; choose one of {', '.join(PLANS)}")
    chosen = PLANS[plan](bases(modality))
    most = {trial.data: max(seeds, SEEDS.get(trial.data, 0)) if plan == "main" else seeds for trial in chosen}
    return [
        replace(trial, seed=seed) for seed in range(max(most.values())) for trial in chosen if seed < most[trial.data]
    ]


def quick(modality: str) -> list[Trial]:
    """A tenth of `main`, two seeds, on a data set of this repository."""
    shipped = [base for base in bases(modality) if base.data in SHIPPED]
    if not shipped:
        raise SystemExit(f"no data set of this repository has a score for `{modality}`; leave out --quick, give --data")
    small = replace(shipped[0], rows=min(shipped[0].rows, 4000), steps=min(shipped[0].steps, 375))
    return [replace(arm(small, name), seed=seed) for seed in (0, 1) for name in ARMS]


def bases(modality: str) -> list[Trial]:
    if modality not in BASES:
        raise SystemExit(f"--modality is `{modality}`; choose one of {', '.join(BASES)}")
    return BASES[modality]


SHIPPED = ("verses", "b3db", "fashion10k")
