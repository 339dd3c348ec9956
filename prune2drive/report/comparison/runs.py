"""Finds the run folders that a comparison is of, and names each run by what sets it apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.metrics.base import Column
from prune2drive.metrics.efficiency import budget_share
from prune2drive.report.columns import ALL_TOKENS, columns_of

LONGEST = (
    80  # characters of options that name a run; longer ones, such as a ratio for each camera, leave it to its folder
)
FILES = ("run.json", "metrics.json")
OVERRIDES = Path(".hydra", "overrides.yaml")
METHOD = "pruner"
"""The option that names the method; of a run that keeps all tokens it says nothing else."""
RATIOS = "ratios."
"""Options that set the budget begin with this; a run that keeps all tokens has no use for them."""
APART = ("hydra.", "logger", "folder", "resume", "task")
"""Options that change no result begin with these."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Args:
        path: the run folder.
        run: run.json's content.
        metrics: metrics.json's content.
        options: option -> value: the config groups' choices, and what else the command line said.
        columns: key of metrics.json -> how tables show it.
        label: what sets it apart from the other runs of its comparison, in short; `ALL_TOKENS` is its method's name
            where it keeps them.
        job: the same as options of the command line.
        series: what it has in common with runs of other budgets: its label without options of the ratios.
    """

    path: Path
    run: Mapping[str, Any]
    metrics: Mapping[str, float]
    options: Mapping[str, str]
    columns: Mapping[str, Column]
    label: str = ""
    job: str = ""
    series: str = ""

    @property
    def is_full(self) -> bool:
        """Whether the model was shown the images, and kept all of their tokens."""
        images = (self.run.get("config") or {}).get("images", "shown")
        return budget_share(self.metrics) == 1 and images == "shown"

    def goes_by(self, name: str) -> bool:
        """Returns whether a user may mean this run by a name: its label, its options or its folder."""
        return name in (self.label, self.job, self.path.name) or Path(name).resolve() == self.path


class Fault(NamedTuple):
    """Says why something of a run folder is not shown.

    Args:
        path: the folder.
        reason: why, in one line.
        is_lost: whether nothing of the run is shown.
    """

    path: Path
    reason: str
    is_lost: bool = True

    def __str__(self) -> str:
        what = "is left out" if self.is_lost else "is not paired"
        return f"{self.path} {what}: {self.reason}"


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], list[Fault]]:
    """Returns the runs of these folders, each once, and what could not be read.

    Args:
        paths: run folders, and folders of them such as a multirun's.
    """
    runs: list[Run] = []
    faults: list[Fault] = []
    folders = dict.fromkeys(folder.resolve() for path in paths for folder in run_folders(path))
    for folder in folders:
        try:
            runs.append(_read(folder))
        except InputError as error:
            faults.append(Fault(folder, str(error).removeprefix(f"{folder}/")))
        except (OSError, TypeError, ValueError, AttributeError) as error:
            faults.append(Fault(folder, " ".join(str(error).split())))
    return _named(runs), faults


def run_folders(path: Path) -> list[Path]:
    """Returns a run folder itself, and of any other folder the run folders in it, in the order of their numbers."""
    if is_run(path) or not path.is_dir():
        return [path]
    return sorted(filter(is_run, path.iterdir()), key=_job_number) or [path]


def is_run(folder: Path) -> bool:
    """Returns whether a folder holds a run, finished or not."""
    return any((folder / name).is_file() for name in (*FILES, OVERRIDES))


def _job_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdecimal() else 0, folder.name)


def _read(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        InputError: it is missing, holds no finished run or is damaged.
    """
    if not folder.is_dir():
        raise InputError("no such folder")
    if not is_run(folder):
        raise InputError("holds no run")
    run = read_json(folder / "run.json")
    if isinstance(run, dict) and not (folder / "metrics.json").is_file():
        raise InputError(f"not finished, status {run.get('status', 'unknown')}")
    metrics = read_json(folder / "metrics.json")
    for name, content in zip(FILES, (run, metrics), strict=True):
        if not isinstance(content, dict):
            raise InputError(f"{name}: not a JSON object")
    if wrong := [key for key, value in metrics.items() if not isinstance(value, int | float)]:
        raise InputError(f"metrics.json: {wrong[0]} is no number")
    file = folder / OVERRIDES
    overrides = map(str, OmegaConf.load(file)) if file.is_file() else ()
    said = dict(_plain(option.lstrip("+~")).partition("=")[::2] for option in overrides)
    if budget_share(metrics) == 1:
        said = {name: value for name, value in said.items() if not name.startswith(RATIOS)}
    choices = {group: _plain(str(name)) for group, name in (run.get("choices") or {}).items()}
    options = {name: value for name, value in (choices | said).items() if not name.startswith(APART)}
    known = {key: value for key, value in metrics.items() if math.isfinite(value)}
    return Run(folder, run, known, options, columns_of(run))


def _plain(text: str) -> str:
    """Returns a text in one line, without characters that cannot be printed."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _named(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs with their names; those of equal options are told apart by their folders."""
    common = common_options(runs) if len(runs) > 1 else {}
    apart = [{name: value for name, value in run.options.items() if name not in common} for run in runs]
    labels = [_label(run, options) for run, options in zip(runs, apart, strict=True)]
    named = []
    for run, options, label in zip(runs, apart, labels, strict=True):
        unique = label if labels.count(label) == 1 else f"{label} ({run.path.name})".strip()
        job = " ".join(f"{name}={value}" for name, value in options.items()) or unique
        series = _words(run, {name: value for name, value in options.items() if not name.startswith(RATIOS)})
        named.append(replace(run, label=unique, job=job, series=series or unique))
    return _unique(named)


def _label(run: Run, options: Mapping[str, str]) -> str:
    """Returns a short name of a run: its options, or its folder where they are long, or for a run alone its choices."""
    words = _words(run, options)
    if len(words) > LONGEST:
        return run.path.name
    return words or " ".join(_plain(str(name)) for name in (run.run.get("choices") or {}).values())


def _words(run: Run, options: Mapping[str, str]) -> str:
    """Returns a choice of a config group by its name alone, and another option by the last part of its name."""
    if run.is_full:
        options = {**options, METHOD: ALL_TOKENS}
    words = (f"{name.rpartition('.')[2]}={value}" if "." in name else value or name for name, value in options.items())
    return " ".join(words)


def _unique(runs: Sequence[Run]) -> list[Run]:
    """Returns the runs with the whole path in the labels that several have still."""
    count = Counter(run.label for run in runs)
    return [run if count[run.label] == 1 else replace(run, label=f"{run.label} {run.path}") for run in runs]


def common_options(runs: Sequence[Run]) -> dict[str, str]:
    """Returns the options that all runs share."""
    first, *others = runs
    return {
        name: value for name, value in first.options.items() if all(run.options.get(name) == value for run in others)
    }
