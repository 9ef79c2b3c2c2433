"""The tables and plots of a plan's results."""

from collections import defaultdict
from pathlib import Path

from . import plots
from .record import Result, read, trial_of
from .summary import Difference, difference, scores_by_seed
from .trial import Trial

Group = tuple[object, ...]
Lines = dict[str, dict[float, list[float]]]

ENCODERS_DIFFER = ("pairs",)
"""Modalities that train several encoders on a data set."""


def group_of(trial: Trial) -> Group:
    """What trials share that are compared: all but arm, settings and seed."""
    return (trial.data, trial.encoder, trial.batch, trial.steps, trial.rows, trial.lr, trial.temperature, trial.loss)


def report(trials: list[Trial], path: Path, plan: str = "main") -> None:
    """Prints and draws those of `trials` that have results in `path`, as the plan is best read."""
    arms: dict[str, set[str]] = defaultdict(set)
    for trial in trials:
        arms[trial.key].add(trial.arm)
    # Names are the plan's: another plan may have run the same trial under another. A trial that this one has under
    # several, as the default and as a value of a dial, stands under each.
    results = [
        {**result, "trial": {**result["trial"], "arm": arm}}
        for result in latest(read(path))
        for arm in sorted(arms[trial_of(result).key])
    ]
    order = {arm: place for place, arm in enumerate(dict.fromkeys(trial.arm for trial in trials))}
    results.sort(key=lambda result: order[result["trial"]["arm"]])
    if results:
        VIEWS.get(plan, tables)(results, path)


def tables(results: list[Result], path: Path) -> None:
    """A table and a plot for each group of results that differ in arm and seed alone."""
    for of_group in grouped(results).values():
        split, gains = table(of_group)
        if gains:
            trial = trial_of(of_group[0])
            parts = (path.stem, trial.data, trial.encoder, trial.batch, trial.steps)
            if trial.modality not in ENCODERS_DIFFER:
                parts = (path.stem, trial.data, trial.batch, trial.steps)
            if split == "dev":
                parts = (*parts, trial.loss)
            plots.gains(title(trial), gains, path.with_name("-".join(map(str, parts)) + ".svg"))


def batch_sizes(results: list[Result], path: Path) -> None:
    """Scores by batch size, at equal steps and at equal samples seen."""
    metric = next(iter(results[0]["dev"]))
    least = min(trial_of(result).batch * trial_of(result).steps for result in results)
    steps = {trial_of(result).steps for result in results if trial_of(result).batch == 32}
    print(f"| B | steps | seeds | uniform | recommended | gain in {metric} |\n|---:|---:|---:|---:|---:|---|")
    lines: dict[str, Lines] = {"equal steps": {}, "equal samples seen": {}}
    for of_group in grouped(results).values():
        trial, scores = trial_of(of_group[0]), scores_by_seed(of_group, "dev", metric)
        gain = difference(scores.get("recommended", {}), scores.get("uniform", {}))
        means = (f"{mean(scores[name]):.4f}" if name in scores else "" for name in ("uniform", "recommended"))
        print(f"| {trial.batch} | {trial.steps} | {gain.seeds if gain else ''} | {' | '.join(means)} | {gain or ''} |")
        samples = trial.batch * trial.steps
        kinds = {
            "equal steps": trial.steps in steps,
            "equal samples seen": abs(samples / least - 1) < 0.01 or trial.batch == 32,
        }
        for kind in (kind for kind, is_one in kinds.items() if is_one):
            for arm, by_seed in scores.items():
                lines[kind].setdefault(arm, {})[trial.batch] = list(by_seed.values())
    name = title(trial_of(results[0]), batch=False)
    for kind, of_kind in lines.items():
        file = path.with_name(f"{path.stem}-batch-{kind.split()[1]}.svg")
        plots.curves(f"{name}, {kind}: {metric}", "batch size", of_kind, file)


def dials(results: list[Result], path: Path) -> None:
    """One table, and a plot with a panel for each dial."""
    _, gains = table(results)
    panels: dict[str, dict[str, Difference]] = defaultdict(dict)
    for arm, gain in gains.items():
        dial, _, value = arm.partition(" ")
        if value:
            panels[dial][value] = gain
    plots.dials(title(trial_of(results[0])), panels, gains["recommended"], path.with_name(f"{path.stem}-dials.svg"))


def grid(results: list[Result], _: Path) -> None:
    """Scores of each arm by learning rate and temperature."""
    metric = next(iter(results[0]["dev"]))
    by_data: dict[Group, dict[tuple[float, float], dict[str, dict[int, float]]]] = defaultdict(dict)
    for of_group in grouped(results).values():
        trial = trial_of(of_group[0])
        by_data[trial.data, trial.encoder][trial.lr, trial.temperature] = scores_by_seed(of_group, "dev", metric)
    for columns in by_data.values():
        print(f"\n| {metric} | {' | '.join(f'{lr:g}, τ {tau:g}' for lr, tau in columns)} |")
        print(f"|---|{'---:|' * len(columns)}")
        for arm in next(iter(columns.values())):
            cells = (f"{mean(scores[arm]):.4f}" if arm in scores else "" for scores in columns.values())
            print(f"| {arm} | {' | '.join(cells)} |")


VIEWS = {"batch": batch_sizes, "dials": dials, "tune": grid}
"""How plans are shown that `tables` does not suit."""


def grouped(results: list[Result]) -> dict[Group, list[Result]]:
    groups: dict[Group, list[Result]] = defaultdict(list)
    for result in results:
        groups[group_of(trial_of(result))].append(result)
    return groups


def title(trial: Trial, batch: bool = True) -> str:
    # Graphs and images have one encoder each.
    name = f"{trial.data}, {trial.encoder}" if trial.modality in ENCODERS_DIFFER else trial.data
    return f"{name}, B = {trial.batch}, {trial.steps} steps" if batch else name


def mean(by_seed: dict[int, float]) -> float:
    return sum(by_seed.values()) / len(by_seed)


def latest(results: list[Result]) -> list[Result]:
    """The last result of each trial, one with a test score before one without."""
    best: dict[str, Result] = {}
    for result in results:
        key = trial_of(result).key
        if key not in best or "test" in result or "test" not in best[key]:
            best[key] = result
    return list(best.values())


def table(results: list[Result]) -> tuple[str, dict[str, Difference]]:
    """Prints a row for each arm, and returns the split and the gains over `uniform` by the first metric."""
    trial = trial_of(results[0])
    split = "test" if all("test" in result for result in results) else "dev"
    print(f"\n{title(trial)} over {results[0]['samples']:,} samples, ", end="")
    print(f"learning rate {trial.lr:g}, τ = {trial.temperature:g}, {trial.loss}; {split}\n")
    metrics = list(results[0][split])
    heads = ["sampler", "seeds", *metrics, f"gain in {metrics[0]}", "similarity", "false", "cost", "waits"]
    print(f"| {' | '.join(heads)} |")
    print(f"|---|---:|{'---:|' * len(metrics)}---|---:|---:|---:|---:|")
    gains = {}
    first = scores_by_seed(results, split, metrics[0])
    for arm in first:
        own = [result for result in results if result["trial"]["arm"] == arm]
        means = [sum(result[split][metric] for result in own) / len(own) for metric in metrics]
        gain = difference(first[arm], first.get("uniform", {})) if arm != "uniform" else None
        if gain:
            gains[arm] = gain
        facts = [average(own, name) for name in ("similarity", "false_negatives", "sampler_share", "wait_share")]
        cells = [arm, str(len(own)), *(f"{score:.4f}" for score in means), str(gain or ""), *facts]
        print(f"| {' | '.join(cells)} |")
    return split, gains


def average(results: list[Result], name: str) -> str:
    values = [result[name] for result in results if result[name] is not None]
    if not values:
        return "–"
    value = sum(values) / len(values)
    return f"{value:.3f}" if name == "similarity" else f"{value:.1%}".replace("%", " %")
