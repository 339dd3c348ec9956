"""GoldenViewVQA's scores (Wang et al., arXiv 2606.09644), and how much of a budget goes to the golden view.

    view_accuracy         the share of questions whose golden view, which holds the evidence, is named
    view_macro_accuracy   the mean over golden views of the share of their questions
    answer_accuracy       the share of questions whose right option is named
    joint_accuracy        the share with both, by which the benchmark ranks

The benchmark takes a view and a letter, one of each; here they are read from the answer's text, and an answer that
names none or several is wrong, as `unread` counts. The `golden/` metrics are ours: over the questions whose golden view
is shown, the tokens kept at the end in that camera and in the others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from prune2drive.cameras import CAMERAS
from prune2drive.metrics.base import SCORE, Column, shares
from prune2drive.metrics.lenient import letter
from prune2drive.metrics.statistics import RunningMean, combine, mean
from prune2drive.sample import Prediction

VIEWS = (*CAMERAS, "NONE_OF_THE_ABOVE")
_VIEW = re.compile(rf"\b(?:{'|'.join(VIEWS)})\b", re.I)
SCORES = {
    "joint_accuracy": "view and option right",
    "answer_accuracy": "option right",
    "view_accuracy": "view right",
    "view_macro_accuracy": "view right, mean over views",
}
BUDGETS = {
    "golden/budget_share": Column("budget in the golden view", is_share=True, in_comparison=True, in_terminal=False),
    "golden/even_share": Column("the same if all views kept alike", is_share=True),
    "golden/kept": Column("tokens kept in the golden view"),
    "golden/others_kept": Column("tokens kept in each other view"),
}


class Named(NamedTuple):
    """A view and an option's letter, None where a text names none or several."""

    view: str | None
    letter: str | None


@dataclass(frozen=True)
class GoldenViewScore:
    """The scores of a set of predictions; a `prune2drive.metrics.base.Metric`.

    A row's reference is the golden view and the letter of the right option, such as `CAM_FRONT A`.
    """

    headline: ClassVar[str] = "joint_accuracy"
    question_score: ClassVar[str] = "view and option right"
    columns: ClassVar[Mapping[str, Column]] = {**SCORE, **shares(SCORES), **BUDGETS}
    judge_id: ClassVar[Mapping[str, Any] | None] = None

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns the scores in [0, 1] and the budgets, each mean with `_n` and `_stderr`; empty without references.

        `score` is `joint_accuracy`; `unread` is the number of answers that name no view or no option.
        """
        means: dict[str, RunningMean] = defaultdict(RunningMean)
        by_view: dict[str, list[float]] = defaultdict(list)
        unread = 0
        for row, wanted in _scored(predictions):
            values = _scores(row, wanted)
            for key, value in values.items():
                means[key].add(value)
            by_view[str(wanted.view)].append(values["view_accuracy"])
            unread += None in named(row.answer or "")
        if not means:
            return {}
        metrics = {
            name: value for key in (*SCORES, *BUDGETS) if key in means for name, value in means[key].flat(key).items()
        }
        metrics |= _macro(by_view) | {"unread": unread}
        return metrics | means[self.headline].flat("score")

    def unscorable_reason(self, question: Prediction) -> str:
        """Returns why no answer could be scored: the reference names no golden view."""
        if None not in named(question.reference or ""):
            return ""
        return "their references name no golden view and option; choose the metrics of the data set"

    def caveat(self, metrics: Mapping[str, float]) -> str:
        """Returns why there is no score, in one line; empty where there is one."""
        return "" if "score" in metrics else "no score: these questions have no golden view and right option"

    def by_question(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns question id -> whether view and option are right, for paired comparisons of two runs."""
        return {row.id: _scores(row, wanted)[self.headline] for row, wanted in _scored(predictions)}

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns key of metrics.json -> question id -> value, of all but the mean over views."""
        parts: dict[str, dict[str, float]] = defaultdict(dict)
        for row, wanted in _scored(predictions):
            for key, value in _scores(row, wanted).items():
                parts[key][row.id] = value
        return dict(parts)


def named(text: str) -> Named:
    """Returns the view and the option that a text names, such as `CAM_FRONT A` or `View: CAM_FRONT, answer: A`."""
    views = {found.upper() for found in _VIEW.findall(text)}
    return Named(views.pop() if len(views) == 1 else None, letter(_VIEW.sub("", text)))


def _scored(predictions: Collection[Prediction]) -> Iterator[tuple[Prediction, Named]]:
    """Yields the rows to score, with what their reference names."""
    for row in predictions:
        if row.answer is not None and row.error is None and None not in (wanted := named(row.reference or "")):
            yield row, wanted


def _scores(row: Prediction, wanted: Named) -> dict[str, float]:
    """Returns every metric that is a mean over questions and that a row enters, with its value."""
    found = named(row.answer or "")
    scores = {
        "joint_accuracy": float(found == wanted),
        "answer_accuracy": float(found.letter == wanted.letter),
        "view_accuracy": float(found.view == wanted.view),
    }
    kept, full, golden = row.kept_counts, row.full_counts, wanted.view
    if golden in kept and len(kept) > 1 and sum(kept.values()) > 0:
        others = [count for camera, count in kept.items() if camera != golden]
        scores |= {
            "golden/budget_share": kept[golden] / sum(kept.values()),
            "golden/even_share": full[golden] / sum(full.values()),
            "golden/kept": kept[golden],
            "golden/others_kept": sum(others) / len(others),
        }
    return scores


def _macro(by_view: Mapping[str, list[float]]) -> dict[str, float]:
    """Returns the mean over golden views of the share of right views among their questions."""
    first, recalls = 0, {}
    for view, values in by_view.items():
        recalls[view] = mean(values, range(first, first + len(values)))
        first += len(values)
    return combine(recalls, dict.fromkeys(recalls, 1 / len(recalls))).flat("view_macro_accuracy")
