"""Exact match over all questions, beside the DriveLM challenge's scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prune2drive.metrics.base import SCORE, Column, shares
from prune2drive.metrics.closed_answers import ClosedAnswers, comparable
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.statistics import RunningMean
from prune2drive.sample import Prediction


@dataclass(frozen=True)
class ExactMatch(ClosedAnswers):
    """The share of answers that equal their reference to the letter.

    Args:
        drivelm: scores the same answers the challenge's way.
    """

    headline: ClassVar[str] = "exact_match"
    question_score: ClassVar[str] = "answers right"
    columns: ClassVar[Mapping[str, Column]] = {
        **SCORE,
        **shares({"exact_match": "exact match"}),
        **DriveLMScore.columns,
    }

    drivelm: DriveLMScore = field(default_factory=DriveLMScore)

    @property
    def judge_id(self) -> Mapping[str, Any] | None:
        return self.drivelm.judge_id

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns the challenge's metrics and `exact_match`, which is the `score`; empty without references."""
        exact = RunningMean()
        for row in comparable(predictions):
            exact.add(row.answer == row.reference)
        if not exact.count:
            return {}
        return {**self.drivelm.measure(predictions), **exact.flat(self.headline), **exact.flat("score")}

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns key of metrics.json -> question id -> score, of the metrics that are means over questions."""
        return {self.headline: self.by_question(predictions), **self.drivelm.parts_by_question(predictions)}
