"""What every metric and every judge offers, and how a metric says what tables show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from prune2drive.sample import Prediction

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """How tables show one key of metrics.json.

    Args:
        label: the heading in the comparison of several runs.
        is_share: whether the value lies in [0, 1] and is shown with its 95 % interval.
        in_run: whether the table of a single run has it.
        in_comparison: whether the comparison of several runs has it.
        in_terminal: whether the narrow table that ends a multirun has it too.
        is_cost: whether less of it is better, and the comparison draws the score against it.
        unit: what stands behind the value on pages.
        scale: what the value is multiplied with for that unit.
        axis: what the axis of a chart says; the label by default.
    """

    label: str
    is_share: bool = False
    in_run: bool = True
    in_comparison: bool = False
    is_cost: bool = False
    unit: str = ""
    scale: float = 1.0
    axis: str = ""
    in_terminal: bool = True


SCORE = {"score": Column("score", is_share=True, in_comparison=True)}
"""The column that every metric begins with."""


def shares(labels: Mapping[str, str]) -> dict[str, Column]:
    """Returns columns of shares that only the table of a single run has.

    Args:
        labels: key of metrics.json -> what a page calls it.
    """
    return {key: Column(label, is_share=True) for key, label in labels.items()}


class Metric(Protocol):
    """A benchmark's scores of a set of predictions."""

    @property
    def headline(self) -> str:
        """The key of the metric that is also reported as `score`."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """Key of metrics.json -> how tables show it, in their order; run.json records them as `columns`."""

    @property
    def judge_id(self) -> Mapping[str, Any] | None:
        """What two judges must share for their scores to be comparable; None without a judge.

        Raises:
            InputError: the judge cannot be used.
        """

    def unscorable_reason(self, question: Prediction) -> str:
        """Returns why no answer to this question could be scored, and what to do; empty where one could.

        Args:
            question: a row with a reference and without an answer.
        """

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns the flat metrics: every mean with `<key>_n` and `<key>_stderr`; empty without references.

        Raises:
            InputError: the judge gave an impossible score.
        """

    def caveat(self, metrics: Mapping[str, float]) -> str:
        """Returns why there is no `score`, or what it leaves out, in one line; empty for a whole score.

        Args:
            metrics: what `__call__` returned; may hold other metrics too.
        """

    @property
    def question_score(self) -> str:
        """What `by_question` scores, as a chart's axis says it."""

    def by_question(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns question id -> score, for paired comparisons of two runs; only questions that have one.

        A score depends on no rows but those of the question's frame.
        """

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns key of metrics.json -> question id -> score, of those metrics that are means over questions.

        A score depends on no rows but those of the question's frame.
        """


@dataclass(frozen=True)
class Rubric(Generic[T]):
    """What a judge is asked about an answer, and how its reply is read.

    Args:
        prompt: the text, with {reference} and {answer} and, optionally, {question}.
        parse: turns a reply into scores in [0, 1]; None for a reply that holds none.
        reference: the text that an answer is compared with.
    """

    prompt: str
    parse: Callable[[str], T | None]
    reference: Callable[[Prediction], str]


class JudgeUnavailable(Exception):
    """A judge stopped answering.

    Args:
        missing: the number of questions without a reply.
        asked: the number of all questions.
        reason: the last error, in one line.
    """

    def __init__(self, missing: int, asked: int, reason: str) -> None:
        super().__init__(f"no reply to {missing} of {asked} questions: {reason}")
        self.missing, self.asked, self.reason = missing, asked, reason


OFFICIAL = "judge"
"""The `key` of judges whose scores enter a benchmark's official formula."""


class Judge(Protocol):
    """Scores answers against their references."""

    @property
    def key(self) -> str:
        """The metric that the scores are reported as: `OFFICIAL`, or a name of the judge's own."""

    def __call__(self, rows: Sequence[Prediction], rubric: Rubric[Any]) -> Mapping[str, Any]:
        """Returns id -> what the rubric parses, without the rows that got no score.

        Raises:
            JudgeUnavailable: the judge stopped answering.
        """

    def identity(self, rubric: Rubric[Any]) -> Mapping[str, Any]:
        """Returns what two judges must share for their scores to be comparable."""


def is_official(judge: Judge | None) -> bool:
    """Returns whether there is a judge whose scores enter the official formula."""
    return judge is not None and judge.key == OFFICIAL
