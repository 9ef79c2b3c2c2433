"""`examples/train/evidence.py`: trials repeat exactly, are not run twice, and are compared as statistics has it."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

TRAIN = Path(__file__).parent.parent.parent / "examples/train"
sys.path.insert(0, str(TRAIN))

from trials import plans, record, report  # noqa: E402
from trials.arms import ARMS, arm  # noqa: E402
from trials.run import run  # noqa: E402
from trials.summary import difference  # noqa: E402
from trials.trial import Trial  # noqa: E402

SMALL = Trial("pairs", "verses", "", rows=200, batch=16, steps=36)
NONE = Path("no-such-folder")


@pytest.mark.parametrize("name", ARMS)
def test_a_trial_repeats_exactly(name: str) -> None:
    trial = arm(SMALL, name)
    first, second = run(trial, NONE), run(trial, NONE)
    assert first["dev"] == second["dev"]
    assert first["similarity"] == second["similarity"]


def test_nearest_first_is_harder_than_uniform() -> None:
    uniform, knn = (run(arm(SMALL, name), NONE) for name in ("uniform", "knn"))
    assert knn["similarity"] > uniform["similarity"]


def test_differences_are_those_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(7)
    ours, theirs = ({seed: float(x) for seed, x in enumerate(rng.normal(0.5, 0.1, 9))} for _ in range(2))
    del theirs[4]
    told = difference(ours, theirs)
    seeds = [seed for seed in ours if seed != 4]
    test = stats.ttest_rel([ours[s] for s in seeds], [theirs[s] for s in seeds])
    low, high = test.confidence_interval(0.95)
    base = np.mean([theirs[s] for s in seeds])
    assert told.seeds == 8
    assert told.relative * base == pytest.approx((low + high) / 2)
    assert told.half_width * base == pytest.approx((high - low) / 2)


def test_no_trial_is_run_twice(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    trials = [replace(trial, test=False) for trial in plans.trials("pairs", "main", 2)]
    record.append(path, trials[0], {"dev": {"recall@1": 0.5}})
    assert list(record.missing(trials, path)) == trials[1:]
    # A result without a test score does not stand for one with it, but the reverse does.
    assert replace(trials[0], test=True) in list(record.missing([replace(trials[0], test=True)], path))
    record.append(path, trials[0], {"dev": {"recall@1": 0.5}, "test": {"recall@1": 0.4}})
    assert list(record.missing([trials[0], replace(trials[0], test=True)], path)) == []


def test_a_table_has_gains_over_uniform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    trials = [replace(arm(SMALL, name), seed=seed) for seed in (0, 1) for name in ("uniform", "recommended")]
    for trial in trials:
        score = 0.5 + 0.1 * (trial.arm == "recommended") + 0.01 * trial.seed
        facts = {"samples": 200, "similarity": 0.1, "false_negatives": None, "sampler_share": 0.02, "wait_share": 0.0}
        record.append(path, trial, {"dev": {"recall@1": score}, **facts})
    report.report(trials, path)
    assert "| recommended | 2 | 0.6050 | +19.8 % ± 0.0 % |" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.svg"))) == 1
