"""Results as JSON lines, one a trial."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from .trial import Trial

Result = dict[str, Any]
"""A trial's fields under `trial`, and what came of it."""


def read(path: Path) -> list[Result]:
    """All results, in the order in which they came."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def trial_of(result: Result) -> Trial:
    known = {field.name for field in fields(Trial)}
    return Trial(**{name: value for name, value in result["trial"].items() if name in known})


def missing(trials: list[Trial], path: Path) -> Iterator[Trial]:
    """The trials that have no result yet, or none of the test split where that is asked for."""
    done = {trial_of(result).key: "test" in result for result in read(path)}
    for trial in trials:
        if trial.key not in done or (trial.test and not done[trial.key]):
            done[trial.key] = trial.test
            yield trial


def append(path: Path, trial: Trial, result: Result) -> None:
    """Adds a line in one write, so that processes may share the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"trial": asdict(trial), "revision": revision(), **result}) + "\n"
    with path.open("a") as file:
        file.write(line)


def revision() -> str:
    """The commit that is checked out, with a `+` if files differ from it; `unknown` outside of a repository."""
    here = Path(__file__).parent
    told = [
        subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
        for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
    ]
    if any(run.returncode for run in told):
        return "unknown"
    commit, changes = (run.stdout.strip() for run in told)
    return commit + ("+" if changes else "")
