"""How much faster a ratio search's trials are with the prefix cache, at the same answers.

    python -m benchmarks.trials                        # three ways to run a trial, in turns
    python -m benchmarks.trials --trials 6 --every 2 --frames 10 pruner=outlier

Each trial answers the same questions of the search split with T-FPS at other keep ratios, drawn at random with a mean
of 10 %: with `prefix_cache=memory` in one process and, every few trials, also without it in the same process and by
running `run.py` anew, answering by frame and by question. The first trial, which fills the cache, is in no rate.
Further arguments are options of `run.py`.

Figures to reach: 10 times as many cached trials a minute as with `run.py`, and no score different. The model computes
in bfloat16, and what is computed together rounds otherwise, so that an answer may fall otherwise where two are level:
`rows_that_differ` counts the cached trials' such answers, and `without_cache_in_smaller_batches` those of runs without
any cache in batches of two fifths of the size.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.runs import PLAIN, REPOSITORY, in_process
from prune2drive.cameras import CAMERAS
from prune2drive.results.run_folder import RunFolder

Way = tuple[Callable[[Sequence[str]], None], float, tuple[str, ...]]


def anew(overrides: Sequence[str]) -> None:
    """One run in a process of its own."""
    subprocess.run([sys.executable, "run.py", *overrides], cwd=REPOSITORY, check=True, capture_output=True)


NO_CACHE, ALONE = "prefix_cache=none", "batching=question"
WAYS: dict[str, Way] = {  # what runs a trial, its share of the batch size, and options of its own
    "cached": (in_process, 1.0, ("prefix_cache=memory",)),
    "in_process": (in_process, 1.0, (NO_CACHE,)),
    "run.py": (anew, 1.0, (NO_CACHE,)),
    "run.py_by_question": (anew, 1.0, (NO_CACHE, ALONE)),
    "smaller": (in_process, 0.4, (NO_CACHE,)),
}
RATES = ("cached", "in_process", "run.py", "run.py_by_question")


def draws() -> Iterator[str]:
    """Keep ratios of one trial after the other, as an option of `run.py`."""
    draw = random.Random(0)
    while True:
        weights = [draw.uniform(0.2, 1.8) for _ in CAMERAS]
        ratios = (round(0.1 * len(CAMERAS) * weight / sum(weights), 4) for weight in weights)
        pairs = ", ".join(f"{name}: {ratio}" for name, ratio in zip(CAMERAS, ratios, strict=True))
        yield f"ratios.keep={{{pairs}}}"


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    common = ["dataset.split=search", f"dataset.frames={args.frames}", "ratios=per_camera", *PLAIN, *args.options]
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    different, compared, scores = dict.fromkeys(WAYS, 0), 0, 0
    for trial, keep in zip(range(args.trials + 1), draws(), strict=False):
        runs = {}
        for way, (run, share, own) in WAYS.items():
            if way != "cached" and trial % args.every:
                continue
            runs[way] = RunFolder(folder / f"{way}{trial}")
            size = max(1, round(args.batch * share))
            start = time.perf_counter()
            run([*common, f"folder='{runs[way].path}'", keep, f"batch_size={size}", *own])
            seconds[way].append(time.perf_counter() - start)
        if "in_process" in runs:
            rows = {way: {row.id: (row.answer, row.kept) for row in made.rows()} for way, made in runs.items()}
            for way, found in rows.items():
                different[way] += sum(found[name] != row for name, row in rows["in_process"].items())
            compared += len(rows["cached"])
            scores += len({runs[way].read_json("metrics.json")["score"] for way in RATES}) > 1
    rates = {way: 60 * len(each[1:]) / sum(each[1:]) for way, each in seconds.items()}
    return {
        "trials": {way: len(each[1:]) for way, each in seconds.items()},
        "frames": args.frames,
        "batch_size": args.batch,
        "trials_per_minute": {way: round(rates[way], 2) for way in RATES},
        "first_cached_trial_s": round(seconds["cached"][0], 1),
        "cached_over_in_process": round(rates["cached"] / rates["in_process"], 2),
        "cached_over_run.py": round(rates["cached"] / rates["run.py"], 2),
        "cached_over_run.py_by_question": round(rates["cached"] / rates["run.py_by_question"], 2),
        "rows_that_differ": different["cached"],
        "without_cache_in_smaller_batches": different["smaller"],
        "of_rows": compared,
        "scores_that_differ": scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--every", type=int, default=4, help="trials between those that are made in the other ways too")
    parser.add_argument("--frames", type=int, default=50, help="with all of their questions")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("options", nargs="*", help="of run.py")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(args, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
