"""How much faster a ratio search's trials are with the prefix cache, at the same answers.

    python -m benchmarks.trials                        # three ways to run a trial, in turns
    python -m benchmarks.trials --trials 2 --questions 100 pruner=fastv

Each trial answers the same questions of the search split with T-FPS at other keep ratios, drawn at random with a mean
of 10 %: with `prefix_cache=memory` in one process, without it in the same process, and by running `run.py`
anew. The three take turns. `first` is the cached trial that fills the cache, and is in no rate. Further arguments are
options of `run.py`.

Figures to reach: at least 4 times as many cached trials a minute as in process without the cache and 10 times as
many as with `run.py`, and no answer or kept token different.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.runs import PLAIN, REPOSITORY, in_process
from prune2drive.results import RunFolder
from prune2drive.vocabulary import CAMERAS


def anew(overrides: Sequence[str]) -> None:
    """One run in a process of its own."""
    subprocess.run([sys.executable, "run.py", *overrides], cwd=REPOSITORY, check=True, capture_output=True)


def measure(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    draw = random.Random(0)
    common = ["dataset.split=search", f"dataset.sample={args.questions}", f"batch_size={args.batch}", *PLAIN]
    ways = {
        "cached": (in_process, "prefix_cache=memory"),
        "in_process": (in_process, "prefix_cache=none"),
        "run.py": (anew, "prefix_cache=none"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, list[float]] = {way: [] for way in ways}
    different = 0
    for trial in range(args.trials + 1):
        weights = [draw.uniform(0.2, 1.8) for _ in CAMERAS]
        ratios = {
            name: round(0.1 * len(CAMERAS) * weight / sum(weights), 4)
            for name, weight in zip(CAMERAS, weights, strict=True)
        }
        keep = "{" + ", ".join(f"{name}: {ratio}" for name, ratio in ratios.items()) + "}"
        found = {}
        for way, (run, cache) in ways.items():
            start = time.perf_counter()
            where = f"folder={folder / f'{way}{trial}'}"
            run([*common, where, "ratios=per_camera", f"ratios.keep={keep}", cache, *args.options])
            seconds[way].append(time.perf_counter() - start)
            made = RunFolder(folder / f"{way}{trial}")
            found[way] = [(row.id, row.answer, row.kept) for row in made.rows()]
            scores[way].append(made.read_json("metrics.json")["score"])
        different += sum(one != other for one, other in zip(found["cached"], found["in_process"], strict=True))
    rates = {way: 60 * args.trials / sum(each[1:]) for way, each in seconds.items()}
    return {
        "trials": args.trials,
        "questions": args.questions,
        "batch_size": args.batch,
        "trials_per_minute": {way: round(rate, 2) for way, rate in rates.items()},
        "first_cached_trial_s": round(seconds["cached"][0], 1),
        "cached_over_in_process": round(rates["cached"] / rates["in_process"], 2),
        "cached_over_run.py": round(rates["cached"] / rates["run.py"], 2),
        "rows_that_differ": different,
        "of_rows": args.questions * (args.trials + 1),
        "scores_that_differ": sum(len({scores[way][trial] for way in ways}) > 1 for trial in range(args.trials + 1)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("options", nargs="*", help="of run.py")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(args, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
