"""NuScenes-QA's scores (Qian et al., arXiv 2305.14836; src/execution/result_eval.py of qiantianwen/NuScenes-QA).

The share of answers that equal their reference to the letter: over all questions, by template type, and by type and
number of hops as the script has them, and by number of hops as the paper's tables do. The script scores a classifier
over 30 answers, so it knows no other spelling; `accuracy_lenient`, which is ours, overlooks case and punctuation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from prune2drive.metrics.base import SCORE, Column, shares
from prune2drive.metrics.closed_answers import ClosedAnswers, comparable
from prune2drive.metrics.lenient import plain
from prune2drive.metrics.statistics import RunningMean
from prune2drive.sample import Prediction

LABELS = {
    "accuracy": "exact match",
    "accuracy_lenient": "match but for case and punctuation (not official)",
    "accuracy/exist": "exact match, exist",
    "accuracy/count": "exact match, count",
    "accuracy/object": "exact match, object",
    "accuracy/status": "exact match, status",
    "accuracy/comparison": "exact match, comparison",
    "accuracy/hop_0": "exact match, no hop",
    "accuracy/hop_1": "exact match, one hop",
}


@dataclass(frozen=True)
class NuScenesQAScore(ClosedAnswers):
    """The exact match of a set of predictions; a `prune2drive.metrics.base.Metric`.

    A row's kind is its template type and number of hops, such as `exist_0`.
    """

    headline: ClassVar[str] = "accuracy"
    question_score: ClassVar[str] = "answers right"
    columns: ClassVar[Mapping[str, Column]] = {**SCORE, **shares(LABELS)}
    judge_id: ClassVar[Mapping[str, Any] | None] = None

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns the accuracies in [0, 1] with `_n` and `_stderr`; `score` is `accuracy`; empty without references."""
        means: dict[str, RunningMean] = defaultdict(RunningMean)
        for row in comparable(predictions):
            for key, value in _scores(row).items():
                means[key].add(value)
        if not means:
            return {}
        keys = [*(key for key in LABELS if key in means), *sorted(means.keys() - LABELS)]
        metrics = {name: value for key in keys for name, value in means[key].flat(key).items()}
        return metrics | means[self.headline].flat("score")

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns key of metrics.json -> question id -> score, of every accuracy."""
        parts: dict[str, dict[str, float]] = defaultdict(dict)
        for row in comparable(predictions):
            for key, value in _scores(row).items():
                parts[key][row.id] = value
        return dict(parts)


def _scores(row: Prediction) -> dict[str, float]:
    """Returns every metric that a row enters, with its score."""
    exact = float(row.answer == row.reference)
    scores = {"accuracy": exact, "accuracy_lenient": float(plain(row.answer or "") == plain(row.reference or ""))}
    template, _, hops = row.kind.rpartition("_")
    parts = (template, f"hop_{hops}", row.kind) if template else ()
    return scores | {f"accuracy/{part}": exact for part in parts}
