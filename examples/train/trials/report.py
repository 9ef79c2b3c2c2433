"""The tables and plots of a plan's results."""

from collections import defaultdict
from pathlib import Path

from . import plots
from .record import Result, read, trial_of
from .summary import Difference, difference, scores_by_seed
from .trial import Trial

Group = tuple[object, ...]


def group_of(trial: Trial) -> Group:
    """What trials share that are compared: all but arm, settings and seed."""
    return (trial.data, trial.encoder, trial.batch, trial.steps, trial.rows, trial.lr, trial.temperature, trial.loss)


def report(trials: list[Trial], path: Path) -> None:
    """Prints a table for each group of `trials` that has results in `path`, and draws it beside that file."""
    arms = {trial.key: trial.arm for trial in trials}
    groups: dict[Group, list[Result]] = defaultdict(list)
    for result in latest(read(path)):
        if (trial := trial_of(result)).key in arms:
            # The arm's name is the plan's: another plan may have run the same trial under another.
            result["trial"]["arm"] = arms[trial.key]
            groups[group_of(trial)].append(result)
    for group, results in groups.items():
        data, encoder, batch, steps, _, lr, temperature, loss = group
        split = "test" if all("test" in result for result in results) else "dev"
        # Graphs and images have one encoder each.
        name = f"{data}, {encoder}" if results[0]["trial"]["modality"] in ("pairs", "text") else data
        print(f"\n{name}: B = {batch}, {steps} steps over {results[0]['samples']:,} samples, ", end="")
        print(f"learning rate {lr:g}, τ = {temperature:g}, {loss}; {split}\n")
        gains = table(results, split)
        if gains:
            file = "-".join(str(part) for part in (path.stem, data, encoder, batch, steps))
            plots.gains(f"{name}, B = {batch}, {steps} steps", gains, path.with_name(f"{file}.svg"))


def latest(results: list[Result]) -> list[Result]:
    """The last result of each trial, one with a test score before one without."""
    best: dict[str, Result] = {}
    for result in results:
        key = trial_of(result).key
        if key not in best or "test" in result or "test" not in best[key]:
            best[key] = result
    return list(best.values())


def table(results: list[Result], split: str) -> dict[str, Difference]:
    """Prints a row for each arm, and returns its gain over `uniform` by the first metric."""
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
        cells = [arm, str(len(own)), *(f"{mean:.4f}" for mean in means), str(gain or ""), *facts]
        print(f"| {' | '.join(cells)} |")
    return gains


def average(results: list[Result], name: str) -> str:
    values = [result[name] for result in results if result[name] is not None]
    if not values:
        return "–"
    mean = sum(values) / len(values)
    return f"{mean:.3f}" if name == "similarity" else f"{mean:.1%}".replace("%", " %")
