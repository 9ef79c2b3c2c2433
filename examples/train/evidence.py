"""Does it train better? Trains encoders on the mini-batches of several samplers, with paired seeds, and compares them.

    python examples/train/evidence.py --modality pairs --quick             # ten minutes, on data of this repository
    python examples/train/evidence.py --modality pairs --data DATA         # all trials of the plan `main`
    python examples/train/evidence.py --modality pairs --plan dials        # one dial at a time

Results are lines of `--out`/MODALITY.jsonl. What is there is not run again, so a run that was stopped goes on, and more
`--seeds` add to those there are. At the end it prints tables in Markdown, with the mean gain over uniform mini-batches
and its 95 % interval over paired seeds, and draws them.

`--data` is the folder of the data sets that are not in this repository; docs/evidence.md says where they come from.
`--jobs` trials run at a time, each on one thread.
"""

import multiprocessing
import os
import time
from pathlib import Path

from common import ROOT, arguments
from trials import plans, record, report
from trials.run import run
from trials.trial import Trial

Job = tuple[Trial, Path, Path]


def work(job: Job) -> str:
    """Runs a trial, adds its result to the file, and says in a line what came of it."""
    trial, data, out = job
    parent = multiprocessing.parent_process()
    if parent and not parent.is_alive():
        # Without this, a run that was killed would go on with its trials unseen.
        raise SystemExit
    result = run(trial, data)
    record.append(out, trial, result)
    metric, score = next(iter(result["dev"].items()))
    return (
        f"{trial.data} {trial.arm}, B = {trial.batch}, seed {trial.seed}: {metric} {score:.4f}, similarity "
        f"{result['similarity']}, {result['seconds']:.0f} s"
    )


def run_all(trials: list[Trial], data: Path, out: Path, jobs: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    todo = [(trial, data, out) for trial in record.missing(trials, out)]
    print(f"{len(todo)} of {len(trials)} trials are to be run", flush=True)
    # A process for each, so that what one costs is told apart.
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        lines = pool.imap_unordered(work, todo)
        failures = 0
        for done in range(1, len(todo) + 1):
            try:
                line = next(lines)
            except Exception as error:  # noqa: BLE001
                # Whatever it is, the others go on; this trial is run again by the next call.
                line, failures = f"failed: {error!r}", failures + 1
            print(f"{time.strftime('%H:%M')}  {done} of {len(todo)}  {line}", flush=True)
    if failures:
        raise SystemExit(f"{failures} trials failed; their errors are above, and the same command runs them again")


def main() -> None:
    args = arguments(
        __doc__,
        modality="pairs",
        plan="main",
        seeds=5,
        jobs=2,
        data=Path("evidence-data"),
        out=ROOT / "docs/evidence",
        quick=False,
        report_only=False,
    )
    out = args.out / f"{args.modality}{'-quick' if args.quick else ''}.jsonl"
    trials = plans.quick(args.modality) if args.quick else plans.trials(args.modality, args.plan, args.seeds)
    if not (args.quick or args.report_only or args.data.is_dir()):
        raise SystemExit(f"--data is {args.data}, which is no folder; docs/evidence.md says what is to be in it")
    if not args.report_only:
        run_all(trials, args.data, out, args.jobs)
    report.report(trials, out, "main" if args.quick else args.plan)


if __name__ == "__main__":
    main()
