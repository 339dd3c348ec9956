"""STSBench's scores (arXiv 2506.06218; eval/eval.py of LRP-IVC/STSBench).

An answer is right if its first character is the right letter, whatever its case and whatever follows. Each kind of
scenario counts alike within its group (ego, ego_agent, agent, agent_agent), and each group alike in the average, by
which the benchmark ranks. `accuracy` and `accuracy_lenient` are ours: the share of questions that are right, and the
same where a letter may stand anywhere as long as it is the only one named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prune2drive.metrics.base import SCORE, Column, shares
from prune2drive.metrics.closed_answers import ClosedAnswers, comparable
from prune2drive.metrics.lenient import letter
from prune2drive.metrics.statistics import Estimate, RunningMean, combine, mean
from prune2drive.sample import Prediction

GROUPS = {
    "ego": "ego vehicle",
    "ego_agent": "ego vehicle and another",
    "agent": "another",
    "agent_agent": "two others",
}
LABELS = {
    "average_accuracy": "option right, mean over groups",
    **{f"accuracy/{group}": f"option right, {label}" for group, label in GROUPS.items()},
    "accuracy": "option right (not official)",
    "accuracy_lenient": "option right, however it is put (not official)",
}


@dataclass(frozen=True)
class STSBenchScore(ClosedAnswers):
    """The scores of a set of predictions; a `prune2drive.metrics.base.Metric`.

    A row's kind is its group and scenario, such as `ego_agent: Ego is following agent`.
    """

    headline: ClassVar[str] = "average_accuracy"
    question_score: ClassVar[str] = "options right"
    columns: ClassVar[Mapping[str, Column]] = {**SCORE, **shares(LABELS)}
    judge_id: ClassVar[Mapping[str, Any] | None] = None

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns the accuracies in [0, 1] with `_n` and `_stderr`; empty without references.

        `score` is the average, over those groups of which there are questions.
        """
        groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
        plain, lenient = RunningMean(), RunningMean()
        for place, row in enumerate(comparable(predictions)):
            group, _, scenario = row.kind.partition(": ")
            right = is_right(row)
            groups.setdefault(group, {}).setdefault(scenario, []).append((place, right))
            plain.add(right)
            lenient.add(letter(row.answer or "") == row.reference)
        if not groups:
            return {}
        means = {group: _mean_of_means(_estimates(scenarios)) for group, scenarios in groups.items()}
        average = _mean_of_means(means)
        metrics = average.flat(self.headline)
        for group in (*(group for group in GROUPS if group in means), *sorted(means.keys() - GROUPS)):
            metrics |= means[group].flat(f"accuracy/{group}")
        return metrics | plain.flat("accuracy") | lenient.flat("accuracy_lenient") | average.flat("score")

    def by_question(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns question id -> whether its answer is right, for paired comparisons of two runs."""
        return {row.id: is_right(row) for row in comparable(predictions)}

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns key of metrics.json -> question id -> score, of those that are means over questions."""
        parts: dict[str, dict[str, float]] = defaultdict(dict)
        for row in comparable(predictions):
            parts["accuracy"][row.id] = is_right(row)
            parts["accuracy_lenient"][row.id] = float(letter(row.answer or "") == row.reference)
        return dict(parts)


def is_right(row: Prediction) -> float:
    """Returns 1 where an answer's first character is the reference's, in either case."""
    return float((row.answer or "")[:1].lower() == (row.reference or "")[:1].lower())


def _estimates(scenarios: Mapping[str, list[tuple[int, float]]]) -> dict[str, Estimate]:
    return {
        name: mean([right for _, right in found], [place for place, _ in found]) for name, found in scenarios.items()
    }


def _mean_of_means(estimates: Mapping[str, Estimate]) -> Estimate:
    return combine(estimates, dict.fromkeys(estimates, 1 / len(estimates)))
