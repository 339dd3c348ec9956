"""Seconds and memory of a comparison's page, for runs of DriveLM's form.

    python -m benchmarks.comparison [--runs 50] [--questions 2000]

Writes synthetic run folders, then takes `python -m prune2drive.report` over all of them in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from transformers import Qwen2Config

from benchmarks.scale import TOKENS, peak_mb, rows
from prune2drive.cameras import CAMERAS
from prune2drive.files import write_json
from prune2drive.formats.drivelm import STAGES
from prune2drive.metrics import efficiency, object_coverage
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.report.__main__ import rebuild
from prune2drive.results.run_folder import Rows, RunFolder
from prune2drive.results.selections import Selections
from prune2drive.sample import Prediction

SIDE, METHODS, KEEPS = 27, 10, (0.05, 0.1, 0.15, 0.25, 0.5)
CONFIG = Qwen2Config(num_hidden_layers=28, hidden_size=3584, num_attention_heads=28, num_key_value_heads=4)


def answered(count: int, run: int, keep: float) -> Iterator[Prediction]:
    """Yields the rows of a run, more of them right the more it keeps."""
    draw = random.Random(run)
    kept = round(TOKENS * keep)
    for number, row in enumerate(rows(0, count)):
        row.kind, row.kept_counts = STAGES[number % len(STAGES)], dict.fromkeys(CAMERAS, kept)
        row.stages, row.nominal = [(1, kept * len(CAMERAS))], kept * len(CAMERAS)
        row.answer = row.reference if draw.random() < 0.4 + keep + 0.01 * (run % METHODS) else "Something else."
        yield row


def write(folder: Path, runs: int, count: int) -> None:
    """Writes finished runs with selections, without photos: methods at several keep ratios."""
    metric = ExactMatch()
    columns = {**metric.columns, **object_coverage.COLUMNS, **efficiency.COLUMNS}
    for number in range(runs):
        keep = KEEPS[number // METHODS % len(KEEPS)]
        run = RunFolder(folder / str(number))
        run.append(answered(count, number, keep))
        grids = dict.fromkeys(CAMERAS, [[[SIDE, SIDE, 0.0, 0.0, 1.0, 1.0]]])
        Selections(run.path, count).append([{"id": row.id, "grids": grids, "objects": []} for row in rows(0, count)])
        found = Rows(run, count)
        metrics = metric(found) | object_coverage.coverage(found) | efficiency.Efficiency(CONFIG).compute(found)
        run.write_json("metrics.json", metrics | {"time/prefill_ms": 100 * keep + number % METHODS})
        config = {"metrics": {"_target_": "prune2drive.metrics.exact_match.ExactMatch"}, "budget_axis": "final"}
        choices = {"model": "synthetic", "dataset": "drivelm", "pruner": f"method{number % METHODS}"}
        shown = {key: asdict(column) for key, column in columns.items()}
        run.write_json("run.json", {"status": "finished", "config": config, "choices": choices, "columns": shown})
        (run.path / ".hydra").mkdir()
        write_json(run.path / ".hydra/overrides.yaml", [f"pruner={choices['pruner']}", f"ratios.keep={keep}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--questions", type=int, default=2000, help="of each run")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        wall, cpu = time.perf_counter(), time.process_time()
        page = rebuild([options.measure])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps([wall, cpu, peak_mb(), page.stat().st_size / 1e6]))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.runs, options.questions)
        command = [sys.executable, "-m", "benchmarks.comparison", "--measure", folder]
        began = time.perf_counter()
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        whole = time.perf_counter() - began
    wall, cpu, peak, size = json.loads(printed.splitlines()[-1])
    print(
        f"{options.runs} runs of {options.questions:,} questions on {os.cpu_count()} CPUs: {whole:.1f} s with imports,"
    )
    print(f"{wall:.1f} s without ({cpu:.1f} s of CPU), {peak:.0f} MB at most, a page of {size:.2f} MB")


if __name__ == "__main__":
    main()
