"""The DriveLM challenge's score (Sima et al., arXiv 2312.14150; challenge/evaluation.py of OpenDriveLab/DriveLM).

A question's tags say how its answer is scored: 0 exact match, 1 a judge alone, 2 COCO's caption metrics, 3 the F1 of
its coordinates, and a judge. `graph.py` says which answers are scored.

    language      = mean(BLEU 1-4) / 3 + ROUGE-L / 3 + CIDEr / 30
    match         = (match_f1 + the judge of the same answers) / 2
    final         = 0.4 judge + 0.2 language + 0.2 match + 0.2 accuracy
    final_offline = (language + match_f1 + accuracy) / 3, the same weights over what needs no judge

`accuracy_lenient` is ours and enters no score: "The correct answer is A" counts as A (DriveLM's issue 171).

Where the official script crashes or has no such case: an odd number of coordinates loses its last one in questions and
references too, as in answers; a frame whose first question has no answer is scored whole; samples that failed or have
no answer are in no mean.
"""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prune2drive.errors import InputError
from prune2drive.metrics.base import SCORE, Column, Judge, JudgeUnavailable, is_official, shares
from prune2drive.metrics.drivelm.graph import Pair, follow_graph, match
from prune2drive.metrics.drivelm.rating import RATING
from prune2drive.metrics.language import score_captions
from prune2drive.metrics.lenient import is_right
from prune2drive.metrics.lines import Lines
from prune2drive.metrics.statistics import Estimate, combine, mean
from prune2drive.sample import Prediction

logger = logging.getLogger(__name__)

ACCURACY, JUDGE, LANGUAGE, MATCH = range(4)
TAGS = {"accuracy": ACCURACY, "judge": JUDGE, "language": LANGUAGE, "match": MATCH, "match_f1": MATCH}
"""Part of the score -> tag of the questions that it needs."""
OFFLINE_WEIGHTS = {"language": 1 / 3, "match_f1": 1 / 3, "accuracy": 1 / 3}
FINAL_WEIGHTS = {"judge": 0.4, "language": 0.2, "match": 0.2, "accuracy": 0.2}
FORMULAS = {"final_offline": OFFLINE_WEIGHTS, "final": FINAL_WEIGHTS}

Estimates = dict[str, Estimate]


@dataclass(frozen=True)
class DriveLMScore:
    """The score of a set of predictions.

    Args:
        judge: scores the answers that need a judge; without one there is no `judge`, `match` and `final`. Answers
            that it gives no score are in no mean, and `judge_unparsed` counts them. A judge with a key of its own, such
            as `similarity`, scores all free text (tags 1 to 3) and enters no formula.
    """

    question_score: ClassVar[str] = "accuracy, or F1 of located objects"
    columns: ClassVar[Mapping[str, Column]] = {
        **SCORE,
        **shares(
            {
                "final": "final score",
                "judge": "judge",
                "accuracy": "right choices, yes and no",
                "accuracy_lenient": "right choices within a sentence too (not official)",
                "language": "language",
                "match": "match, with the judge",
                "match_f1": "F1 of located objects",
                "similarity": "similarity",
            }
        ),
    }

    judge: Judge | None = None

    @property
    def headline(self) -> str:
        """The official formula with an official judge, else the same weights over what needs no judge."""
        return "final" if is_official(self.judge) else "final_offline"

    @property
    def judge_id(self) -> Mapping[str, Any] | None:
        return self.judge.identity(RATING) if self.judge else None

    def unscorable_reason(self, question: Prediction) -> str:
        """Returns why no answer could be scored: the question has no tag, or only that of a judge who is not there."""
        if not question.tags:
            return "they have no tags, as in DriveLM's training file; use test_eval.json, or metrics=minidrive"
        needs_judge = set(question.tags) == {JUDGE} and not self.judge
        return "they need a judge; add judge=openai" if needs_judge else ""

    def __call__(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns the metrics of `measure`, and `score`: the headline.

        Where the questions lack a tag, `score` is the headline's weights over the other parts, scaled to sum to 1;
        `score_parts` is then their number and `score_part/<part>` their weights.

        Args:
            predictions: frames in the official order, in which captions are tokenized; within a frame any order.

        Raises:
            InputError: the judge gave a score outside [0, 1], or Java is broken.
        """
        metrics, estimates, tags = self._measure(predictions)
        weights = FORMULAS[self.headline]
        parts = {part: weight for part, weight in weights.items() if TAGS[part] in tags}
        if not parts or not parts.keys() <= estimates.keys():
            return metrics
        if len(parts) == len(weights):
            return metrics | estimates[self.headline].flat("score")
        parts = {part: weight / sum(parts.values()) for part, weight in parts.items()}
        metrics |= combine(estimates, parts).flat("score")
        return metrics | {"score_parts": len(parts), **{f"score_part/{part}": share for part, share in parts.items()}}

    def measure(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns every metric with its `<key>_n` and `<key>_stderr`, and counts, but no `score`.

        A metric without samples is absent. Where the judge stopped answering, `judge_missing` of `judge_asked` answers
        have no score, and what the judge enters is absent. `official_tokenizer` is 1 where the caption metrics used
        Java's tokenizer. Rows without a reference or tags are ignored; without any others the result is empty.
        """
        return self._measure(predictions)[0]

    def caveat(self, metrics: Mapping[str, float]) -> str:
        """Returns why there is no score, or which parts it lacks, in one line; empty for a whole score."""
        if "judge_missing" in metrics:
            return ""
        weights = FORMULAS[self.headline]
        if "score" not in metrics:
            if "skipped_by_graph" not in metrics:
                return "no score: these questions have no reference answers, or no tags that say how to score them"
            return "no score: " + (
                "the judge's replies could not be read"
                if self.judge
                else "these questions need a judge; add judge=openai"
            )
        if "score_parts" not in metrics:
            return ""
        lacking = [part for part in weights if f"score_part/{part}" not in metrics]
        tags = ", ".join(f"{part} (tag {TAGS[part]})" for part in lacking)
        return (
            f"score leaves out {tags}, for which there are no questions; the official {self.headline} needs all parts"
        )

    def by_question(self, predictions: Collection[Prediction]) -> dict[str, float]:
        """Returns question id -> exact match or F1 of the located objects, for paired comparisons of two runs.

        Captions are left out: their scores are of all captions together.
        """
        scores = {}
        for pair in follow_graph(predictions):
            if ACCURACY in pair.row.tags:
                scores[pair.row.id] = float(pair.answer == pair.reference)
            elif MATCH in pair.row.tags:
                scores[pair.row.id] = match(pair.answer, pair.reference)[1]
        return scores

    def parts_by_question(self, predictions: Collection[Prediction]) -> dict[str, dict[str, float]]:
        """Returns question id -> score of both accuracies and of the F1 of located objects.

        Captions are scored all together, and of a judge's scores the means alone are kept.
        """
        parts: dict[str, dict[str, float]] = {"accuracy": {}, "accuracy_lenient": {}, "match_f1": {}}
        for pair in follow_graph(predictions):
            if ACCURACY in pair.row.tags:
                parts["accuracy"][pair.row.id] = float(pair.answer == pair.reference)
                parts["accuracy_lenient"][pair.row.id] = float(is_right(pair.answer, pair.reference))
            if MATCH in pair.row.tags:
                parts["match_f1"][pair.row.id] = match(pair.answer, pair.reference)[1]
        return parts

    def _measure(self, predictions: Collection[Prediction]) -> tuple[dict[str, float], Estimates, set[int]]:
        """Returns the flat metrics, the estimates they come from, and the tags of the scored questions."""
        counts: Counter[str] = Counter(skipped_by_graph=0, frames_without_graph=0)
        scored = _Scored()
        asked: dict[int, Pair] = {}
        for number, pair in enumerate(follow_graph(predictions, counts)):
            scored.add(number, pair)
            if self.judge:
                asked[number] = pair
        if not scored.count:
            return {}, {}, set()
        estimates, notes = scored.estimates()
        if self.judge:
            try:
                tagged = [{n: pair for n, pair in asked.items() if tag in pair.row.tags} for tag in range(4)]
                judged, more = _judged(self.judge, tagged, estimates)
            except JudgeUnavailable as stopped:
                logger.error("the judge stopped answering: %s", stopped.reason)
                judged, more = {}, {"judge_missing": stopped.missing, "judge_asked": stopped.asked}
            estimates |= judged
            notes |= more
        for key, weights in FORMULAS.items():
            if weights.keys() <= estimates.keys():
                estimates[key] = combine(estimates, weights)
        metrics = {name: value for key, estimate in estimates.items() for name, value in estimate.flat(key).items()}
        return {**metrics, **notes, **counts}, estimates, scored.tags


def _judged(
    judge: Judge, tagged: Sequence[dict[int, Pair]], estimates: Estimates
) -> tuple[Estimates, dict[str, float]]:
    """Returns the estimates that the judge adds, and the number of answers that it gives no score."""
    if not is_official(judge):
        scores = _scores(judge, tagged[JUDGE] | tagged[LANGUAGE] | tagged[MATCH])
        return {judge.key: mean(list(scores.values()), scores)} if scores else {}, {}
    asked = tagged[JUDGE] | tagged[MATCH]
    judged = _scores(judge, asked)
    alone, with_f1 = ({n: judged[n] for n in tagged[tag] if n in judged} for tag in (JUDGE, MATCH))
    added = {}
    if alone:
        added["judge"] = mean(list(alone.values()), alone)
    if with_f1:
        halves = {"f1": estimates["match_f1"], "judge": mean(list(with_f1.values()), with_f1)}
        added["match"] = combine(halves, {"f1": 0.5, "judge": 0.5})
    return added, {"judge_unparsed": len(asked) - len(judged)}


def _scores(judge: Judge, pairs: Mapping[int, Pair]) -> dict[int, float]:
    scores = judge([pair.row for pair in pairs.values()], RATING)
    if wrong := [id for id, score in scores.items() if not 0 <= score <= 1]:
        raise InputError(f"judge: {scores[wrong[0]]} for {wrong[0]} is not in [0, 1]; divide percentages by 100")
    return {n: scores[pair.row.id] for n, pair in pairs.items() if pair.row.id in scores}


class _Scored:
    """Collects what needs no judge of the answers to score: numbers, and captions on disk."""

    def __init__(self) -> None:
        self.count = 0
        self.tags: set[int] = set()
        self._numbers = {tag: array("q") for tag in (ACCURACY, LANGUAGE, MATCH)}
        self._values = {tag: array("d") for tag in (ACCURACY, MATCH)}
        self._lenient = array("d")
        self._answers, self._references = Lines(), Lines()

    def add(self, number: int, pair: Pair) -> None:
        """Adds an answer.

        Args:
            number: its place among all scored answers.
            pair: the answer.
        """
        self.count += 1
        tags = self._numbers.keys() & set(pair.row.tags)
        self.tags |= {tag for tag in pair.row.tags if tag in range(4)}
        for tag in tags:
            self._numbers[tag].append(number)
        if ACCURACY in tags:
            self._values[ACCURACY].append(pair.answer == pair.reference)
            self._lenient.append(is_right(pair.answer, pair.reference))
        if MATCH in tags:
            self._values[MATCH].append(match(pair.answer, pair.reference)[1])
        if LANGUAGE in tags:
            self._answers.append(pair.answer)
            self._references.append(pair.reference)

    def estimates(self) -> tuple[Estimates, dict[str, float]]:
        """Returns the estimates that need no judge, and which tokenizer the captions had."""
        estimates: Estimates = {}
        notes: dict[str, float] = {}
        if values := self._values[ACCURACY]:
            estimates["accuracy"] = mean(values, self._numbers[ACCURACY])
            estimates["accuracy_lenient"] = mean(self._lenient, self._numbers[ACCURACY])
        if numbers := self._numbers[LANGUAGE]:
            language = score_captions(self._answers, self._references, numbers)
            estimates |= language.estimates
            notes["official_tokenizer"] = int(language.tokenizer == "java")
        if values := self._values[MATCH]:
            estimates["match_f1"] = mean(values, self._numbers[MATCH])
        return estimates, notes
