"""Checks that a run can be resumed, and finds the questions it has finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from prune2drive.errors import InputError
from prune2drive.results.run_folder import FORMAT, RunFolder

log = logging.getLogger(__name__)

SAME_ON_RESUME = (
    "task",
    "model",
    "dataset",
    "shard",
    "metrics",
    "pruner",
    "ratios",
    "positions",
    "rounding",
    "budget_axis",
    "generation",
    "seed",
)


class Difference(NamedTuple):
    """Describes an option whose value in run.json differs from the command's."""

    option: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """Returns `option was old, now new`, with classes named by their last two parts."""
        return "{} was {}, now {}".format(*self._texts())

    def between(self) -> str:
        """Returns `option is old and new`, with classes named by their last two parts."""
        return "{} is {} and {}".format(*self._texts())

    def _texts(self) -> tuple[str, str, str]:
        option = self.option.removesuffix("._target_")
        was, now = (self._text(value, is_class=option != self.option) for value in (self.was, self.now))
        return option, was, now

    @staticmethod
    def _text(value: Any, is_class: bool) -> str:
        text = "null" if value is None else str(value)
        if is_class:
            return ".".join(text.split(".")[-2:])
        return text if len(text) <= 60 else f"{text[:60]}..."


def resume_run(folder: RunFolder, record: dict[str, Any], ids: Sequence[str]) -> Set[str]:
    """Returns the ids of the questions that an earlier run in a folder finished.

    Args:
        record: content of run.json for the resumed run, to which the earlier run's `dtype` and, of merged shards,
            `parts` are added.
        ids: ids of all questions.

    Raises:
        InputError: the folder holds no run, or one of another version, options, judge or questions.
    """
    before = folder.read_json("run.json")
    if before.get("format") != FORMAT:
        raise InputError(f"resume={folder.path}: written by an earlier version; run the command again without resume=")
    for option in SAME_ON_RESUME:
        if changed := difference(option, before["config"].get(option), record["config"].get(option)):
            raise InputError(f"resume={folder.path}: {changed}")
    judge = before.get("judge")
    if judge is not None and (changed := difference("judge", judge, record["judge"])):
        raise InputError(f"resume={folder.path}: {changed}")
    if before.get("dataset") != record["dataset"]:
        raise InputError(f"resume={folder.path}: the dataset has changed since; run the command again without resume=")
    record |= {name: before[name] for name in ("dtype", "parts") if name in before}
    done = folder.keep_answered(ids)
    log.info("resuming %s: %d of %d questions are done", folder.path, len(done), record["dataset"]["size"])
    return done


def difference(option: str, was: Any, now: Any) -> Difference | None:
    """Returns the first difference between two settings, or None; a missing option equals null.

    A metric's judge is skipped: `judge` in run.json records those of its settings that must stay the same.
    """
    if not isinstance(was, Mapping) or not isinstance(now, Mapping):
        return None if was == now else Difference(option, was, now)
    names = [name for name in dict.fromkeys((*was, *now)) if name != "judge"]
    found = (difference(f"{option}.{name}", was.get(name), now.get(name)) for name in names)
    return next(filter(None, found), None)
