"""DriveLMM-o1's scores (Ishaq et al., arXiv 2503.10621; evaluation/evaluation_script.py of ayesha-ishaq/DriveLMM-o1).

Multiple-choice accuracy: questions whose id ends in 2, 3, 4, 5 or 8 have options A) to F); the option of the final
answer must be the reference's. Reasoning: a judge marks the whole answer from 1 to 10 by twelve criteria, held against
the reference's steps and final answer.

    rubric/overall = mean of the twelve marks / 10

Where this differs from the script: it takes the mean that the judge works out, and leaves questions that the judge did
not answer out of the accuracy too.
"""

from __future__ import annotations

import json
import logging
import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prune2drive.metrics.base import SCORE, Column, Judge, JudgeUnavailable, Rubric, is_official, shares
from prune2drive.metrics.statistics import mean
from prune2drive.sample import Prediction

logger = logging.getLogger(__name__)

MULTIPLE_CHOICE = (2, 3, 4, 5, 8)
# The final answer is what follows the last of the first of these that occurs.
MARKERS = (
    "The final answer is:",
    "**Final Answer:**",
    "Final Answer",
    "Answer",
    "Why take this action?:",
    "**Final Decision**:",
    "Final Step:",
    "<CONCLUSION>",
)
LABELS = {"rubric/overall": "rubric, overall", "mcq_accuracy": "choices right", "similarity": "similarity"}
CRITERIA = {
    "faithfulness": ("Faithfulness-Step", "do the steps say what the steps of the reference say?"),
    "informativeness": ("Informativeness-Step", "is every piece of information that matters there?"),
    "risk_assessment": ("Risk Assessment Accuracy", "are the most dangerous objects and events put first?"),
    "traffic_rules": ("Traffic Rule Adherence", "is what it advises lawful and good driving practice?"),
    "scene_awareness": (
        "Scene Awareness & Object Understanding",
        "are the objects, where they are and what they do understood?",
    ),
    "repetition": ("Repetition-Token", "is it free of words said again and again? 10 is for none"),
    "hallucination": ("Hallucination", "is it free of things that are made up? 10 is for none"),
    "semantic_coverage": ("Semantic Coverage-Step", "does it touch on all that the reference's reasoning rests on?"),
    "commonsense": ("Commonsense Reasoning", "is it what a sensible driver would think?"),
    "missing_step": ("Missing Step", "are all necessary steps there? 10 is for none left out"),
    "relevance": ("Relevance", "is it about this very scene and reference, rather than general or vague?"),
    "missing_details": ("Missing Details", "are the details that matter there? 10 is for none left out"),
}
"""Our name of a criterion -> the benchmark's, and what it asks."""


def parse_marks(reply: str) -> dict[str, float] | None:
    """Returns the twelve marks of a JSON reply, over 10; None where one is missing or outside 1 to 10.

    Text around the object is ignored. The script's own form of reply calls one criterion `Commonsense`.
    """
    try:
        found = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
        marks = {
            name: float(found.get(title, found.get(title.removesuffix(" Reasoning"))))
            for name, (title, _) in CRITERIA.items()
        }
    except (ValueError, TypeError, AttributeError):
        return None
    return {name: mark / 10 for name, mark in marks.items()} if all(1 <= m <= 10 for m in marks.values()) else None


def _reference(row: Prediction) -> str:
    return f"Reasoning steps: {' '.join(row.steps)}\nFinal answer: {row.reference}"


MARKS: Rubric[dict[str, float]] = Rubric(
    f"""You examine how a driving assistant reasons about a traffic scene. Hold its response against the reference, \
which is correct, and give a mark from 1 to 10 for each criterion: 9 or 10 if it is met throughout or nearly so, 7 or \
8 with small lapses, 5 or 6 with lapses that matter, 3 or 4 if it is mostly missed, 1 or 2 if it is missed altogether. \
Halves are allowed. Judge by these criteria alone.

{chr(10).join(f"- {title}: {asks}" for title, asks in CRITERIA.values())}

Question: {{question}}

Reference:
{{reference}}

Response:
{{answer}}

Reply with one JSON object and nothing else, its keys the names of the twelve criteria as they are written above and \
its values the marks.""",
    parse_marks,
    _reference,
)


@dataclass(frozen=True)
class DriveLMMo1Score:
    """The scores of a set of predictions.

    Args:
        judge: gives the twelve marks; without a judge there is no `rubric/` key. A judge with a key of its own, such as
            `similarity`, is reported under that key.
    """

    question_score: ClassVar[str] = "choices right"
    columns: ClassVar[Mapping[str, Column]] = {**SCORE, **shares(LABELS)}

    judge: Judge | None = None

    @property
    def headline(self) -> str:
        """The mean of the twelve marks with a judge that gives them, else the multiple-choice accuracy."""
        return "rubric/overall" if is_official(self.judge) else "mcq_accuracy"

    @property
    def judge_id(self) -> Mapping[str, Any] | None:
        return self.judge.identity(MARKS) if self.judge else None

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns `mcq_accuracy`, `rubric/<criterion>` and `rubric/overall` in [0, 1], with `_n` and `_stderr`.

        A metric without samples is absent. `score` is `rubric/overall` with a judge that marks, else `mcq_accuracy`.
        Rows that failed or have no reference are in no mean.
        """
        metrics = _mean("mcq_accuracy", array("d", map(is_right, filter(is_multiple_choice, _scored(predictions)))))
        if self.judge and (rows := list(_scored(predictions))):
            metrics |= _judged(self.judge, rows)
        name = self.headline
        score = {key.replace(name, "score"): value for key, value in metrics.items() if key.startswith(name)}
        return metrics | score

    def unscorable_reason(self, question: Prediction) -> str:
        """Returns why no answer could be scored: the question offers no options, and there is no judge."""
        if self.judge or (is_multiple_choice(question) and option(question.reference or "")):
            return ""
        return "they offer no options; choose the metrics of the data set, or a judge, which scores any answer"

    def by_question(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns multiple-choice question id -> whether its choice is right, for paired comparisons of two runs."""
        return {row.id: float(is_right(row)) for row in _scored(predictions) if is_multiple_choice(row)}

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns question id -> score of the multiple-choice accuracy; a judge's marks are kept as means alone."""
        return {"mcq_accuracy": self.by_question(predictions)}

    def caveat(self, metrics: Mapping[str, float]) -> str:
        """Returns why there is no score, in one line; empty where there is one."""
        if "score" in metrics or "judge_missing" in metrics:
            return ""
        if "judge_unparsed" in metrics:
            return "no score: the judge's replies could not be read"
        return "no score: no question has a reference and options to choose from"


def _judged(judge: Judge, rows: Sequence[Prediction]) -> dict[str, float]:
    try:
        scores = judge(rows, MARKS)
    except JudgeUnavailable as stopped:
        logger.error("the judge stopped answering: %s", stopped.reason)
        return {"judge_missing": stopped.missing, "judge_asked": stopped.asked}
    if not is_official(judge):
        return _mean(judge.key, list(scores.values()))
    metrics: dict[str, float] = {"judge_unparsed": len(rows) - len(scores)}
    for name in CRITERIA:
        metrics |= _mean(f"rubric/{name}", [marks[name] for marks in scores.values()])
    overall = [sum(marks.values()) / len(marks) for marks in scores.values()]
    return metrics | _mean("rubric/overall", overall)


def _mean(key: str, values: Sequence[float]) -> dict[str, float]:
    return mean(values).flat(key) if values else {}


def _scored(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    return (row for row in predictions if None not in (row.answer, row.reference) and row.error is None)


def is_multiple_choice(row: Prediction) -> bool:
    """Returns whether the question has options: the number its id ends in says so."""
    number = row.id.rpartition("_")[2]
    return number.isdecimal() and int(number) in MULTIPLE_CHOICE


def is_right(row: Prediction) -> bool:
    """Returns whether answer and reference choose the same option; two texts without one agree, as in the script."""
    return option(final_answer(row.answer or "")) == option(row.reference or "")


def final_answer(text: str) -> str:
    """Returns the text after the marker of the final answer; empty without a marker."""
    marker = next((marker for marker in MARKERS if marker in text), None)
    return text.rpartition(marker)[2] if marker else ""


def option(text: str) -> str | None:
    """Returns the first option, A to F, that a text names as `A) ...`; F for "none of the ...", else None."""
    named = re.search(r"([A-F])\)\s*.", text)
    if named:
        return named[1]
    return "F" if "none of the " in text.lower() else None
