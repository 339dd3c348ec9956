"""Going on with a run: what has to be as it was, and what is done."""

from __future__ import annotations

import logging
from typing import Any

from prune2drive.errors import InputError
from prune2drive.results.run_folder import RunFolder

log = logging.getLogger(__name__)

SAME_ON_RESUME = (
    "task",
    "model",
    "dataset",
    "metrics",
    "pruner",
    "ratios",
    "positions",
    "rounding",
    "budget_axis",
    "generation",
    "seed",
)


def resume_run(folder: RunFolder, record: dict[str, Any]) -> set[str]:
    """The ids that an earlier run in this folder finished.

    Raises:
        InputError: that run was another one.
    """
    before = folder.read_json("run.json")
    for part in SAME_ON_RESUME:
        was, now = (_without_judge(run.get("config", {}).get(part)) for run in (before, record))
        if was != now:
            raise InputError(f"resume={folder.path}: {part} was {was}, now {now}")
    if before.get("judge") not in (None, record["judge"]):
        raise InputError(f"resume={folder.path}: the judge was {before['judge']}, now {record['judge']}")
    record["dtype"] = before.get("dtype")
    if before.get("dataset") != record["dataset"]:
        raise InputError(
            f"resume={folder.path}: the dataset has changed since ({before.get('dataset')} -> {record['dataset']})"
        )
    done = folder.keep_answered()
    log.info("resuming %s: %d of %d questions are done", folder.path, len(done), record["dataset"]["size"])
    return done


def _without_judge(settings: Any) -> Any:
    """Settings but for the judge's: what of it has to stay as it was is `judge` in run.json."""
    if not isinstance(settings, dict):
        return settings
    return {name: _without_judge(value) for name, value in settings.items() if name != "judge"}
