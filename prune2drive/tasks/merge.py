"""Joins the shards of a run into one run folder: `python -m prune2drive.tasks.merge FOLDERS... [--into FOLDER]`.

The rows are the shards'; metrics, report, submission and W&B run are made anew from all of them, as one process would
have made them, so the questions and the model's configuration must be at hand, but no weights and no GPU. A judge is
asked what its cache of replies does not have.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.report.token_overlay import saved_pictures
from prune2drive.results.id_index import IdIndex, IdSet
from prune2drive.results.run_folder import FULL, RunFolder
from prune2drive.results.selections import SELECTIONS, Selections
from prune2drive.results.shards import Part, join_rows, merged_record, read_parts
from prune2drive.tasks.evaluate import run_task
from prune2drive.tasks.evaluation_run import EvaluationRun
from prune2drive.tasks.latency import LATENCY, pooled

ONE_PROCESS = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}


def merge(folders: Sequence[Path], into: Path | None = None) -> Path:
    """Joins the shards of a run into one run folder, and prints its metrics.

    Args:
        folders: the run folders of all shards, in any order.
        into: the folder to write; by default `merged_<name>` beside the first shard's folder. It may hold an earlier
            merge of the same folders.

    Returns:
        The folder.

    Raises:
        InputError: the folders are no shards of one run, one of them is missing or doubled, or one is not finished;
            `into` holds another run; or the judge stopped answering, with everything else written.
    """
    parts = read_parts(folders)
    full = read_parts([part.path / FULL for part in parts]) if (parts[0].path / FULL).is_dir() else []
    first = parts[0].path
    folder = into or first.with_name(f"merged_{first.name.removesuffix(f'_1-of-{parts[0].count}')}")
    _check_free(folder, parts)
    cfg = _config(parts[0], folder)
    task, components = get_method(cfg.task._target_.rpartition(".")[0] + ".prepare")(cfg)
    whole = {"fingerprint": components.dataset.fingerprint, "size": len(components.dataset)}
    if whole != parts[0].whole:
        raise InputError(f"{first}: the questions or images have changed since; run the shards again")

    def start(run: EvaluationRun) -> None:
        is_full = run.folder.path.name == FULL and run.folder.path.parent == folder
        _assemble(run, full if is_full else parts)

    run_task(cfg, task, components, start)
    return folder


def _assemble(run: EvaluationRun, parts: Sequence[Part]) -> None:
    """Fills a run's folder with what the parts left, so that nothing remains to do but the metrics."""
    run.record |= merged_record(parts)
    run.folder.write_json("run.json", run.record)
    (run.folder.path / SELECTIONS).unlink(missing_ok=True)  # of an earlier merge
    peaks = [part.peak_mb for part in parts]
    known = [peak for peak in peaks if peak is not None]
    run.folder.write_json("metrics.json", {"memory/peak_mb": max(known)} if known else {})
    measured = [read_json(part.path / LATENCY) for part in parts if (part.path / LATENCY).exists()]
    if measured:
        run.folder.write_json(LATENCY, pooled(measured))
    join_rows(parts, run.folder)
    left = run.pictures
    for part in parts:
        pictures = [file for _, file in islice(saved_pictures(part.path, RunFolder(part.path).rows()), left)]
        left -= len(pictures)
        for file in pictures:
            (run.folder.path / file.parent.name).mkdir(exist_ok=True)
            shutil.copy(file, run.folder.path / file.parent.name)
    selections = Selections(run.folder.path, run.explored)
    for part in parts:
        selections.append([*islice(Selections(part.path), max(0, selections.left))])
    ids = run.components.dataset.ids
    run.done = IdSet(IdIndex(ids), np.ones(len(ids), dtype=bool))


def _config(part: Part, folder: Path) -> DictConfig:
    """Returns the configuration of the whole run, as a part's run.json has it."""
    config: dict[str, Any] = dict(part.run["config"])
    config |= {"shard": None, "resume": None, "folder": str(folder), "trainer": config["trainer"] | ONE_PROCESS}
    if config["logger"]:
        config["logger"] = {name: None if name == "shard" else value for name, value in config["logger"].items()}
    return OmegaConf.create(config)


def _check_free(folder: Path, parts: Sequence[Part]) -> None:
    """Refuses a folder that holds anything but an earlier merge of the same parts.

    Raises:
        InputError: it holds another run.
    """
    if RunFolder(folder).has_rows or (folder / "run.json").exists():
        before = read_json(folder / "run.json").get("parts") or []
        if [part.get("folder") for part in before] != [str(part.path) for part in parts]:
            raise InputError(f"{folder}: holds another run; choose another folder with --into")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line above; exits with 2 after one line on stderr where a folder is wrong."""
    parser = argparse.ArgumentParser("python -m prune2drive.tasks.merge", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="run folders of all shards")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="default: merged_<name> beside the first shard's")
    options = parser.parse_args(arguments)
    try:
        merge(options.folders, options.into)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
