"""Compares answers with references to the letter: what the metrics of closed answers share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from prune2drive.sample import Prediction


class ClosedAnswers:
    """The parts of a `prune2drive.metrics.base.Metric` in which an answer is right or wrong."""

    def unscorable_reason(self, question: Prediction) -> str:
        """Returns nothing: any answer can be compared with its reference."""
        return ""

    def caveat(self, metrics: Mapping[str, float]) -> str:
        """Returns why there is no score, in one line; empty where there is one."""
        return "" if "score" in metrics else "no score: these questions have no reference answers"

    def by_question(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns question id -> whether its answer is right, for paired comparisons of two runs."""
        return {row.id: float(row.answer == row.reference) for row in comparable(predictions)}


def comparable(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Yields the rows that have an answer and a reference, and no error."""
    return (row for row in predictions if None not in (row.answer, row.reference) and row.error is None)
