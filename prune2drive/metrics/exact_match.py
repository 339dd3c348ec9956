"""Exact match over all questions, beside the DriveLM challenge's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prune2drive.metrics.base import SCORE, Column, shares
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.language import mean
from prune2drive.sample import Prediction


@dataclass(frozen=True)
class ExactMatch:
    """The share of answers that equal their reference to the letter.

    Args:
        drivelm: scores the same answers the challenge's way.
    """

    headline: ClassVar[str] = "exact_match"
    columns: ClassVar[Mapping[str, Column]] = {**SCORE, **shares("exact_match"), **DriveLMScore.columns}

    drivelm: DriveLMScore = field(default_factory=DriveLMScore)

    @property
    def judge_id(self) -> Any:
        """What run.json says of the judge.

        Raises:
            InputError: it cannot be used.
        """
        return self.drivelm.judge_id

    def __call__(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """The challenge's metrics with `exact_match` as the `score`; empty without references."""
        if not (scored := _scored(predictions)):
            return {}
        exact = mean([row.answer == row.reference for row in scored], range(len(scored)))
        return {**self.drivelm(predictions), **exact.metrics(self.headline), **exact.metrics("score")}

    def can_score(self, question: Prediction) -> bool:
        """Returns True: any answer can be compared with its reference."""
        return True

    def by_question(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Question id -> whether its answer is right, for paired comparisons of two runs."""
        return {row.id: float(row.answer == row.reference) for row in _scored(predictions)}


def _scored(predictions: Sequence[Prediction]) -> list[Prediction]:
    return [row for row in predictions if row.answer is not None and row.reference is not None]
