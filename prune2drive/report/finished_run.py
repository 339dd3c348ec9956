"""Reads a finished run from its folder, as pages show it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.metrics.base import Metric
from prune2drive.metrics.frames import by_frame
from prune2drive.results.run_folder import rows_in
from prune2drive.sample import Prediction

log = logging.getLogger(__name__)

CANNOT_BUILD = (InstantiationException, InputError, OmegaConfBaseException, ImportError, OSError, TypeError, ValueError)


class StoredRows(Collection[Prediction]):
    """Holds the rows of a run folder, which are read from disk each time they are gone through.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __iter__(self) -> Iterator[Prediction]:
        return rows_in(self.folder)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)


class ScoredRow(NamedTuple):
    """A row and its scores, as the run's metric has them.

    Args:
        score: None where the question has none alone.
        parts: key of metrics.json -> score of the question, of the metrics that are means over questions.
    """

    row: Prediction
    score: float | None
    parts: Mapping[str, float]


@dataclass
class FinishedRun:
    """A run folder.

    Args:
        folder: the folder.
        run: run.json's content.
    """

    folder: Path
    run: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Returns the run of a folder.

        Raises:
            InputError: its run.json is missing or damaged.
        """
        return cls(folder, read_json(folder / "run.json", f"{folder} is no run folder"))

    @property
    def rows(self) -> StoredRows:
        """All rows."""
        return StoredRows(self.folder)

    @cached_property
    def metric(self) -> Metric | None:
        """What scores the run's answers, without its judge; None where it cannot be built here."""
        try:
            return metric_of(self.run)
        except InputError as error:
            log.warning("%s: its answers are shown without scores: %s", self.folder, error)
            return None

    @property
    def question_score(self) -> str:
        """What the score of a question says, in words."""
        return getattr(self.metric, "question_score", "score")

    def scored_rows(self) -> Iterator[ScoredRow]:
        """Yields all rows with their scores, frame by frame."""
        for rows in by_frame(self.rows):
            scores = self.metric.by_question(rows) if self.metric else {}
            parts = self.metric.parts_by_question(rows) if self.metric else {}
            for row in rows:
                of_row = {key: values[row.id] for key, values in parts.items() if row.id in values}
                yield ScoredRow(row, scores.get(row.id), of_row)

    def dataset(self) -> Any:
        """Returns the run's questions, with their photos.

        Raises:
            InputError: they are not at hand.
        """
        try:
            if found := instantiate(self.run["config"]["dataset"], _convert_="all"):
                return found
            raise KeyError("dataset")
        except (*CANNOT_BUILD, KeyError) as error:
            raise InputError(f"the questions of {self.folder} are not at hand ({error})") from error


def metric_of(run: Mapping[str, Any]) -> Metric:
    """Returns what scored a run, without its judge.

    Args:
        run: run.json's content.

    Raises:
        InputError: it does not say what that was, or it cannot be built here.
    """
    node = (run.get("config") or {}).get("metrics")
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise InputError("run.json does not say how answers are scored")
    try:
        metric = instantiate(_without_judge(node), _convert_="all")
    except (*CANNOT_BUILD, KeyError, AttributeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"its metrics, {node['_target_']}, cannot be built here: {reason}") from error
    if not hasattr(metric, "by_question"):
        raise InputError(f"its metrics, {node['_target_']}, score no question by itself")
    return metric


def _without_judge(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a metric's configuration without its judge, whom the score of a single question does not need."""
    parts = {name: _without_judge(part) if isinstance(part, Mapping) else part for name, part in config.items()}
    return parts | ({"judge": None} if "judge" in parts else {})
