"""Records what the product does, so that a change of its structure can be shown to change nothing else.

    python -m benchmarks.snapshot record BEFORE --drivelm DIR     # on the code as it was
    python -m benchmarks.snapshot record AFTER --drivelm DIR      # on the code as it is
    python -m benchmarks.snapshot compare BEFORE AFTER            # lists every difference, exits with 1 if any

Recorded are the rows of predictions.jsonl without times, metrics.json without times and memory, flops.json, the winner
of a search, and how a run ended: for every pruner at 25 and 10 % on MiniDrive, every way to give ratios, object
coverage, the costs of every model, a DriveLM folder (`--drivelm`), a search with and without the prefix cache, and two
ranks. `--tree` names another checkout whose `run.py` is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
MINIDRIVE = ("dataset.size=40", "full=false", "logger=none", "pictures=0", "latency.questions=0")
TINY = ("model=tiny", "full=false", "logger=none", "pictures=0", "latency.questions=0", "generation.max_new_tokens=6")
SEARCH = (
    "-m",
    "search=tpe",
    "search.trials=6",
    "search.finalists=2",
    "search.random_draws=1",
    "search.splits.search.frames=2",
    "search.splits.val.sample=20",
    "search.splits.test.sample=20",
    "logger=none",
    "generation.max_new_tokens=20",
)
TIMED = ("times", "batch", "seconds")
MACHINE = ("time/", "memory/")


def cases(tree: Path, drivelm: Path | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields each recorded command by name."""
    pruners = ",".join(sorted(path.stem for path in (tree / "configs/pruner").glob("*.yaml")))
    yield "pruners", ("-m", f"pruner={pruners}", "ratios.keep=0.25,0.1", *MINIDRIVE)
    for ratios in sorted({path.stem for path in (tree / "configs/ratios").glob("*.yaml")} - {"uniform"}):
        yield f"ratios_{ratios}", (f"ratios={ratios}", *MINIDRIVE)
    yield "coverage", ("task=coverage", *MINIDRIVE)
    yield "coverage_frame", ("task=coverage", "task.per=frame", "pruner=uniform", *MINIDRIVE)
    yield "full", ("dataset.size=20", "logger=none", "pictures=1", "latency.questions=0")
    for model in sorted(path.stem for path in (tree / "configs/model").glob("*.yaml")):
        yield f"flops_{model}", ("task=flops", f"model={model}")
    if drivelm:
        for batch in (1, 4):
            options = ("dataset=drivelm", f"dataset.root={drivelm}", f"batch_size={batch}", *TINY)
            yield f"drivelm_{batch}", options
    yield "search_cached", (*SEARCH, "prefix_cache=memory")
    yield "search_plain", (*SEARCH, "prefix_cache=none")
    yield "two_ranks", ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", *MINIDRIVE)


def run(tree: Path, options: tuple[str, ...], folder: Path) -> str:
    """Runs `run.py` in an empty folder and returns how it ended."""
    where = f"hydra.sweep.dir={folder}" if options[0] == "-m" else f"hydra.run.dir={folder}"
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(tree / "run.py"), *options, where]
    ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error")]
    (folder.parent / f"{folder.name}.log").write_text(ended.stdout + ended.stderr)
    return f"exit {ended.returncode}" + "".join(f"; {line}" for line in errors)


def results(folder: Path) -> dict[str, Any]:
    """Returns what a command left, by file, without what depends on the machine."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "metrics.json":
            metrics = json.loads(path.read_text())
            found[name] = {key: value for key, value in metrics.items() if not any(part in key for part in MACHINE)}
        elif path.name == "predictions.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if key not in TIMED} for row in rows]
        elif path.name == "flops.json":
            found[name] = json.loads(path.read_text())
        elif path.name == "winner.yaml":
            lines = path.read_text().splitlines()
            found[name] = [line for line in lines if line.startswith("  CAM")]
    return found


def record(tree: Path, drivelm: Path | None, folder: Path, only: list[str]) -> None:
    """Runs every case and writes a JSON file of what each left."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in cases(tree, drivelm):
        if only and not any(name.startswith(each) for each in only):
            continue
        runs = (folder / "runs" / name).resolve()
        shutil.rmtree(runs, ignore_errors=True)
        runs.parent.mkdir(exist_ok=True)
        ended = run(tree, options, runs)
        content = {"ended": ended, "files": results(runs)}
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True))
        print(name, ended, f"{len(content['files'])} files", flush=True)


def differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Yields each place in which two recorded values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                yield f"{at}/{key}: only {'before' if key in before else 'after'}"
            else:
                yield from differences(before[key], after[key], f"{at}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{at}[{place}]")
    elif before != after:
        yield f"{at}: {str(before)[:100]} -> {str(after)[:100]}"


def compare(before: Path, after: Path) -> int:
    """Prints every difference between two records; returns how many there are."""
    count, files = 0, sorted({path.name for path in (*before.glob("*.json"), *after.glob("*.json"))})
    for name in files:
        old, new = (json.loads(path.read_text()) if path.exists() else {} for path in (before / name, after / name))
        found = list(differences(old, new, name.removesuffix(".json")))
        count += len(found)
        for line in found[:20]:
            print(line)
        if len(found) > 20:
            print(f"... and {len(found) - 20} more in {name}")
    print(f"{len(files)} cases compared, {count} differences")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("folder", type=Path)
    recorder.add_argument("--drivelm", type=lambda text: Path(text).resolve())
    recorder.add_argument("--tree", type=lambda text: Path(text).resolve(), default=REPOSITORY)
    recorder.add_argument("--only", nargs="*", default=[], help="beginnings of the names of cases")
    comparer = commands.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.command == "record":
        record(args.tree, args.drivelm, args.folder, args.only)
    else:
        sys.exit(1 if compare(args.before, args.after) else 0)


if __name__ == "__main__":
    main()
