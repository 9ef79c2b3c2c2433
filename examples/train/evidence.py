"""Does it train better? Trains encoders on mini-batches of several samplers, with paired seeds, and compares them.

    python examples/train/evidence.py --data DATA --modality pairs
"""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

from common import ROOT, arguments
from trials import record
from trials.run import run
from trials.trial import Trial


def work(job: tuple[Trial, Path, Path]) -> str:
    trial, data, out = job
    result = run(trial, data)
    record.append(out, trial, result)
    first, score = next(iter(result["dev"].items()))
    return f"{trial.data} {trial.arm} B={trial.batch} seed={trial.seed}: dev {first} {score:.4f}, sim {result['similarity']}, fn {result['false_negatives']}, share {result['sampler_share']}, {result['seconds']:.0f} s, cpu {result['cpu_seconds']:.0f}"


def run_all(trials: list[Trial], data: Path, out: Path, jobs: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    todo = list(record.missing(trials, out))
    print(f"{len(todo)} of {len(trials)} trials are to be run", flush=True)
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
        for n, line in enumerate(pool.imap_unordered(work, [(t, data, out) for t in todo]), 1):
            print(f"{time.strftime('%H:%M')} {n}/{len(todo)} {line}", flush=True)


def main() -> None:
    args = arguments(__doc__, data=ROOT.parent / "shared/data", plan=Path(""), out=Path("/tmp/evidence.jsonl"), jobs=2)
    trials = [Trial(**json.loads(line)) for line in args.plan.read_text().splitlines()]
    run_all(trials, args.data, args.out, args.jobs)


if __name__ == "__main__":
    main()
