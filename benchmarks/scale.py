"""Memory and time of what a run does with all its rows, for one and for ten times as many.

    python -m benchmarks.scale [--questions 38000]

Writes synthetic rows of DriveLM's form (frames of 19 questions of six cameras, a quarter of the answers scored as
captions) into temporary run folders and takes each step in a process of its own:

    resume     finds out which questions are done
    metrics    joins the rows, scores them, counts coverage and costs
    page       draws report.html, beside the same questions with all tokens
    submit     writes the challenge's submission
    merge      joins the rows of 8 shards
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import Qwen2Config

from prune2drive.cameras import CAMERAS
from prune2drive.metrics import efficiency, object_coverage
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.report.run_page import write_report
from prune2drive.results.drivelm_submission import DriveLMSubmission
from prune2drive.results.resume import resume_run
from prune2drive.results.run_folder import FORMAT, FULL, IN_FULL, RunFolder
from prune2drive.results.shards import join_rows, read_parts
from prune2drive.sample import Prediction, pack_indices

PER_FRAME, TOKENS, KEPT, SHARDS = 19, 729, 73, 8
TAGS = ((0,), (0,), (1,), (2,), (3,), (0,), (2,), (1,))
WORDS = """a the car truck bus pedestrian is are moving stopped turning left right ahead behind of ego vehicle lane red
light traffic cone barrier parked going crossing slow keeps its should wait because front back side road near far one
two many white black sedan""".split()


class Ids(Sequence[str]):
    """Names questions without keeping the names, so that what is measured is what rows cost."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        frame, number = divmod(index, PER_FRAME)
        return f"{frame // 6:032x}_{frame:032x}_{number}"


def rows(first: int, last: int):
    """Yields rows as an evaluation writes them; kept sets and sentences differ from question to question."""
    names = Ids(last)
    masks = [pack_indices(torch.randperm(TOKENS)[:KEPT], TOKENS) for _ in range(512)]
    counts = dict.fromkeys(CAMERAS, TOKENS), dict.fromkeys(CAMERAS, KEPT)
    for index in range(first, last):
        draw = random.Random(index)
        frame, number = divmod(index, PER_FRAME)
        point = f"<c{number},{CAMERAS[index % 6]},{index % 1600}.5,{index % 900}.0>"
        answer, reference = (
            " ".join([*draw.choices(WORDS, k=draw.randint(6, 20)), point if number % 4 == 0 else ""]) for _ in range(2)
        )
        objects = [(camera, "small", f"class {draw.randint(0, 9)}", draw.randint(0, 2), 2) for camera in CAMERAS]
        yield Prediction(
            names[index],
            f"What is object {number}, and {' '.join(draw.choices(WORDS, k=8))}?",
            reference if draw.random() < 0.4 else answer,
            reference,
            tags=TAGS[number % len(TAGS)],
            scene=f"{frame // 6:032x}",
            frame=f"{frame:032x}",
            text_tokens=120,
            full_counts=counts[0],
            kept_counts=counts[1],
            kept={camera: draw.choice(masks) for camera in CAMERAS},
            objects=objects,
            stages=[(1, 6 * KEPT)],
            nominal=6 * KEPT,
            new_tokens=12,
            flops={"vision": 10**12, "selection": 10**9},
            seconds=draw.random(),
        )


def write(folder: Path, count: int) -> None:
    """Writes a finished run of that many rows, and the same in shards."""
    config = {"pictures": 0, "metrics": {"_target_": "prune2drive.metrics.exact_match.ExactMatch"}}
    record = {"format": FORMAT, "config": config, "judge": None, "dataset": {"fingerprint": "f", "size": count}}
    run = RunFolder(folder / "run")
    run.write_json("run.json", record)
    frames = count // PER_FRAME
    bounds = [PER_FRAME * (frames * part // SHARDS) for part in range(SHARDS)] + [count]
    for part in range(SHARDS):
        shard = RunFolder(folder / str(part))
        size = bounds[part + 1] - bounds[part]
        dataset = {"fingerprint": "f", "size": size, "shard": f"{part + 1}/{SHARDS}", "whole": record["dataset"]}
        ended = {"status": "finished", "command": "", "started": "", "dataset": dataset}
        shard.write_json("run.json", record | ended)
        block: list[Prediction] = []
        for row in rows(bounds[part], bounds[part + 1]):
            block.append(row)
            if len(block) == 1000:
                shard.append(block)
                block.clear()
        shard.append(block)
        with run.rows_file.open("ab") as whole, shard.rows_file.open("rb") as lines:
            whole.writelines(lines)


def resume(folder: Path, count: int) -> None:
    run, ids = RunFolder(folder / "run"), Ids(count)
    done = resume_run(run, run.read_json("run.json"), ids)
    assert not any(name not in done for name in ids)


def metrics(folder: Path, count: int) -> None:
    config = Qwen2Config(num_hidden_layers=28, hidden_size=3584, num_attention_heads=28, num_key_value_heads=4)
    run = RunFolder(folder / "run")
    found = run.merge(Ids(count))
    assert not sum(row.error is not None for row in found)
    numbers = ExactMatch()(found) | object_coverage.coverage(found) | efficiency.Efficiency(config).compute(found)
    run.write_json("metrics.json", numbers | {f"{IN_FULL}{key}": value for key, value in numbers.items()})


def page(folder: Path, count: int) -> None:
    run = RunFolder(folder / "run")
    full = RunFolder(run.path / FULL)
    full.rows_file.hardlink_to(run.rows_file)
    write_report(run.path, run.read_json("run.json"), run.read_json("metrics.json"))


def submit(folder: Path, count: int) -> None:
    run = RunFolder(folder / "run")
    DriveLMSubmission("m", "t", ["a"], "e", "i", "c").write(run.path, run.merge(Ids(count)), count)


def merge(folder: Path, count: int) -> None:
    whole = RunFolder(folder / "merged")
    join_rows(read_parts([folder / str(part) for part in range(SHARDS)]), whole)
    assert len(whole.merge(Ids(count))) == count


STEPS: dict[str, Callable[[Path, int], None]] = {step.__name__: step for step in (resume, metrics, page, submit, merge)}


def peak_mb() -> float:
    """Returns this program's peak; on Linux, getrusage would count the process that started it too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def measured(step: str, folder: Path, count: int) -> tuple[float, float]:
    """Returns the peak resident memory in MB and the CPU seconds of a step in a fresh process, imports apart."""
    command = [sys.executable, "-m", "benchmarks.scale", "--step", step, str(folder), str(count)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return tuple(json.loads(printed.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=38_000, help="the smaller number; the larger is ten times it")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, count = options.step
        start = time.process_time()
        STEPS[name](Path(folder), int(count))
        print(json.dumps([peak_mb(), time.process_time() - start]))
        return
    few, many = options.questions, 10 * options.questions
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in STEPS}
    for count in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), count)
            for name in STEPS:
                found[name].append(measured(name, Path(folder), count))
    print(f"| step | MB, {few:,} rows | MB, {many:,} rows | more memory | CPU s, {few:,} rows | CPU s, {many:,} rows |")
    print("|---|---|---|---|---|---|")
    for name, ((small, fast), (large, slow)) in found.items():
        print(
            f"| {name} | {small:.0f} | {large:.0f} | {large / small - 1:+.1%} | {fast:.1f} | {slow:.1f} |", flush=True
        )


if __name__ == "__main__":
    main()
