"""The DriveLM challenge's score (Sima et al., arXiv 2312.14150; challenge/evaluation.py of OpenDriveLab/DriveLM).

A question's tags say how its answer is scored: 0 exact match, 1 a judge alone, 2 COCO's caption metrics, 3 the F1 of
the coordinates it names, and a judge. The first question of a frame sets the frame's graph, the reference
coordinates its answer finds; a later question is scored only if all its coordinates are in the graph.

    language      = mean(BLEU 1-4) / 3 + ROUGE-L / 3 + CIDEr / 30
    match         = (match_f1 + the judge of the same answers) / 2
    final         = 0.4 judge + 0.2 language + 0.2 match + 0.2 accuracy
    final_offline = (language + match_f1 + accuracy) / 3, the same weights over what needs no judge

Where the official script crashes or has no such case: an odd number of coordinates loses its last one in questions and
references too, as in answers; a frame whose first question has no answer here has no graph, and all of it is scored;
samples that failed or have no answer are in no mean. An answer and a reference without coordinates have F1 0, as there.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from prune2drive.errors import InputError
from prune2drive.metrics.base import SCORE, Column, shares
from prune2drive.metrics.drivelm_files import read_predictions, read_references
from prune2drive.metrics.judge.chat import ChatJudge, identity_of, key_of
from prune2drive.metrics.judge.endpoint import Unanswered
from prune2drive.metrics.language import Estimate, combine, mean, score_captions
from prune2drive.sample import Prediction

logger = logging.getLogger(__name__)

ACCURACY, JUDGE, LANGUAGE, MATCH = range(4)
FINAL_WEIGHTS = {"judge": 0.4, "language": 0.2, "match": 0.2, "accuracy": 0.2}
OFFLINE_WEIGHTS = {"language": 1 / 3, "match_f1": 1 / 3, "accuracy": 1 / 3}
MATCH_DISTANCE = 16  # pixels, L1

Point = tuple[float, float]
Judge = Callable[[Sequence[Prediction]], Mapping[str, float]]
"""Scores answers: from rows with question, answer and reference to id -> score in [0, 1]."""


class Pair(NamedTuple):
    """An answer and its reference, both there."""

    row: Prediction
    answer: str
    reference: str

    @property
    def number(self) -> int | None:
        """The question's place in its frame, from 0: the number its id ends in."""
        digits = re.search(r"\d+$", self.row.id)
        return int(digits[0]) if digits else None


@dataclass(frozen=True)
class DriveLMScore:
    """The score of a set of predictions.

    Args:
        judge: asked for the answers that need one; without it there is no `judge`, `match` and `final`. Answers
            that it leaves out are not in its means, and their number is `judge_unparsed`. One that has a `key` of its
            own, such as `similarity`, scores all free text (tags 1 to 3) and enters no formula.
    """

    columns: ClassVar[Mapping[str, Column]] = {
        **SCORE,
        **shares("final", "judge", "accuracy", "language", "match", "match_f1", "similarity"),
    }

    judge: Judge | None = None

    @property
    def headline(self) -> str:
        """The official formula with the official judge, else the same weights over what needs none."""
        return "final" if key_of(self.judge) == "judge" else "final_offline"

    @property
    def judge_id(self) -> Any:
        """What run.json says of the judge.

        Raises:
            InputError: it cannot be used.
        """
        return identity_of(self.judge)

    def __call__(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Every metric with its sample count `<key>_n` and standard error `<key>_stderr`, and counts.

        A metric without samples is absent. `score` is `final` with a judge and else `final_offline`. Where the judge
        stopped answering, `judge_missing` of `judge_asked` answers are not scored, and what it enters is absent.
        `official_tokenizer` is 1 where the caption metrics ran behind Java's tokenizer and 0 where there is no Java.
        Rows without a reference or tags are ignored; where that is all of them, the result is empty.

        Args:
            predictions: frames in the official order, in which captions are tokenized; within a frame any order.

        Raises:
            InputError: a judge's score outside [0, 1], or a broken Java.
        """
        pairs, counts = follow_graph(predictions)
        if not pairs:
            return {}
        estimates, notes = self._estimates(pairs)
        for key, weights in {"final_offline": OFFLINE_WEIGHTS, "final": FINAL_WEIGHTS}.items():
            if weights.keys() <= estimates.keys():
                estimates[key] = combine(estimates, weights)
        if self.headline in estimates:
            estimates["score"] = estimates[self.headline]
        metrics = {name: value for key, e in estimates.items() for name, value in e.metrics(key).items()}
        return {**metrics, **notes, **counts}

    def can_score(self, question: Prediction) -> bool:
        """Returns True: DriveLM's own training file has no tags, and its questions are answered all the same."""
        return True

    def by_question(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Question id -> its score, for paired comparisons of two runs: exact match or F1 of the located objects.

        Captions are left out, whose scores are of all of them together.
        """
        found = {}
        for pair in follow_graph(predictions)[0]:
            if ACCURACY in pair.row.tags:
                found[pair.row.id] = float(pair.answer == pair.reference)
            elif MATCH in pair.row.tags:
                found[pair.row.id] = match(pair.answer, pair.reference)[1]
        return found

    def _estimates(self, pairs: Sequence[Pair]) -> tuple[dict[str, Estimate], dict[str, float]]:
        tagged = [{n: pair for n, pair in enumerate(pairs) if tag in pair.row.tags} for tag in range(4)]
        estimates: dict[str, Estimate] = {}
        notes: dict[str, float] = {}
        if exact := tagged[ACCURACY]:
            estimates["accuracy"] = mean([pair.answer == pair.reference for pair in exact.values()], exact)
        if captions := tagged[LANGUAGE]:
            answers, references = zip(*(pair[1:] for pair in captions.values()), strict=True)
            language = score_captions(answers, references, list(captions))
            estimates |= language.estimates
            notes["official_tokenizer"] = int(language.tokenizer == "java")
        if located := tagged[MATCH]:
            estimates["match_f1"] = mean([match(pair.answer, pair.reference)[1] for pair in located.values()], located)
        if self.judge:
            try:
                more, counts = self._judged(tagged, estimates)
            except Unanswered as stopped:
                logger.error("the judge stopped answering: %s", stopped.reason)
                more, counts = {}, {"judge_missing": stopped.missing, "judge_asked": stopped.asked}
            estimates |= more
            notes |= counts
        return estimates, notes

    def _judged(
        self, tagged: Sequence[dict[int, Pair]], estimates: Mapping[str, Estimate]
    ) -> tuple[dict[str, Estimate], dict[str, float]]:
        """What the judge adds, and the number of answers of which it says nothing."""
        if (key := key_of(self.judge)) != "judge":
            scores = self._scores(tagged[JUDGE] | tagged[LANGUAGE] | tagged[MATCH])
            return {str(key): mean(list(scores.values()), scores)} if scores else {}, {}
        asked = tagged[JUDGE] | tagged[MATCH]
        judged = self._scores(asked)
        alone, with_f1 = ({n: judged[n] for n in tagged[tag] if n in judged} for tag in (JUDGE, MATCH))
        more = {}
        if alone:
            more["judge"] = mean(list(alone.values()), alone)
        if with_f1:
            halves = {"f1": estimates["match_f1"], "judge": mean(list(with_f1.values()), with_f1)}
            more["match"] = combine(halves, {"f1": 0.5, "judge": 0.5})
        return more, {"judge_unparsed": len(asked) - len(judged)}

    def _scores(self, pairs: Mapping[int, Pair]) -> dict[int, float]:
        scores = self.judge([pair.row for pair in pairs.values()]) if self.judge else {}
        if wrong := [id for id, score in scores.items() if not 0 <= score <= 1]:
            raise InputError(f"judge: {scores[wrong[0]]} for {wrong[0]} is not in [0, 1]; divide percentages by 100")
        return {n: scores[pair.row.id] for n, pair in pairs.items() if pair.row.id in scores}


def follow_graph(predictions: Iterable[Prediction]) -> tuple[list[Pair], dict[str, float]]:
    """The answers to score, frame by frame in the order of the questions, and counts of the rest.

    The counts are `skipped_by_graph`, answers, and `frames_without_graph`, frames whose first question has no answer.
    """
    frames: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for row in predictions:
        if row.answer is not None and row.reference is not None and row.error is None:
            frames[row.scene, row.frame].append(Pair(row, row.answer, row.reference))
    scored: list[Pair] = []
    skipped = without = 0
    for pairs in frames.values():
        pairs.sort(key=lambda pair: pair.number or 0)
        first = next((pair for pair in pairs if pair.number == 0), None)
        graph = match(first.answer, first.reference)[0] if first else None
        tagged = [pair for pair in pairs if pair.row.tags]
        kept = [p for p in tagged if p is first or graph is None or set(coordinates(p.row.question)) <= set(graph)]
        scored += kept
        skipped += len(tagged) - len(kept)
        without += bool(tagged) and graph is None
    return scored, {"skipped_by_graph": skipped, "frames_without_graph": without}


def coordinates(text: str) -> list[Point]:
    """The points of a text, such as <c1,CAM_FRONT,1043.2,82.2>: its decimal numbers in pairs."""
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", text)]
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def match(answer: str, reference: str) -> tuple[list[Point], float]:
    """The reference's points that an answer finds, and the F1 of that.

    Each of the answer's points in turn takes the nearest reference point left, the first of equally near ones, if it
    is closer than 16 pixels in L1.
    """
    points, left = coordinates(answer), coordinates(reference)
    total = len(points) + len(left)
    found = []
    for x, y in points:
        distances = [abs(x - u) + abs(y - v) for u, v in left]
        if distances and min(distances) < MATCH_DISTANCE:
            found.append(left.pop(distances.index(min(distances))))
    return found, 2 * len(found) / total if total else 0.0


def score_files(
    predictions: Path, references: Path, allow_missing: bool = False, judge: Judge | None = None
) -> dict[str, float]:
    """The score of a file of predictions.

    Args:
        predictions: see `read_predictions`.
        references: see `read_references`.
        allow_missing: leave out references that have no answer, or whose sample failed.
        judge: see `DriveLMScore`.

    Raises:
        InputError: a file that cannot be scored.
    """
    rows, answers = read_references(references), read_predictions(predictions)
    missing = [row.id for row in rows if answers.get(row.id) is None]
    if missing and not allow_missing:
        count = f"{len(missing)} of {len(rows)} references have no answer, first {missing[0]}"
        raise InputError(f"{predictions}: {count}; add them, or leave them out with --allow-missing")
    if unknown := len(answers.keys() - {row.id for row in rows}):
        logger.warning("%s: %d answers have no reference and are ignored", predictions, unknown)
    metrics = DriveLMScore(judge)([replace(row, answer=answers.get(row.id)) for row in rows])
    if not metrics:
        raise InputError(f"{predictions}: no answer to a question that {references} can score; check the ids")
    return metrics


EXAMPLE = """examples:
  python -m prune2drive.metrics.drivelm --predictions output.json --references test_eval.json
  python -m prune2drive.metrics.drivelm --predictions output.json --references test_eval.json \\
      --judge-base-url https://api.openai.com/v1 --judge-model gpt-4o-mini

prints {"accuracy": 0.81, "accuracy_n": 350, "accuracy_stderr": 0.02, ..., "final_offline": 0.52, ...}: each mean with
its sample count (_n) and standard error (_stderr), in [0, 1] but cider in [0, 10]. final_offline is (language +
match_f1 + accuracy) / 3; a judge adds the official final. skipped_by_graph counts the answers that the challenge does
not score because the first answer of their frame misses an object they are about."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prune2drive.metrics.drivelm",
        description="Score DriveLM answers as the challenge does and print the metrics as JSON.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--predictions", type=Path, required=True, help="output.json, submission.json, predictions.jsonl"
    )
    parser.add_argument("--references", type=Path, required=True, help="test_eval.json, with answers and tags")
    parser.add_argument("--allow-missing", action="store_true", help="leave out references that have no answer")
    judge = parser.add_argument_group("the challenge's judge, behind an OpenAI-compatible endpoint")
    judge.add_argument("--judge-base-url", metavar="URL", help="up to and without /chat/completions")
    judge.add_argument("--judge-model", metavar="NAME", help="as the endpoint calls it")
    judge.add_argument("--judge-api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable with the key")
    judge.add_argument("--judge-prompt-file", metavar="FILE", help="a prompt with {reference} and {answer}")
    judge.add_argument("--judge-cache", metavar="DIR", default="outputs/judge_cache", help="where replies are kept")
    try:
        given = vars(parser.parse_args(argv))
        settings = {name.removeprefix("judge_"): given.pop(name) for name in list(given) if name.startswith("judge_")}
        metrics = score_files(**given, judge=_chat_judge(**settings))
        if missing := metrics.get("judge_missing"):
            count = f"{missing} of {metrics['judge_asked']} answers are not judged"
            raise InputError(f"{count}; the same command goes on with them")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(metrics, indent=2))
    return 0


def _chat_judge(base_url: str | None, model: str | None, **settings: Any) -> ChatJudge | None:
    if not base_url and not model:
        return None
    if not base_url or not model:
        raise InputError("a judge needs --judge-base-url and --judge-model; give both or neither")
    judge = ChatJudge(base_url, model, **settings)
    judge.identity()  # a prompt that cannot be used shows now
    return judge


if __name__ == "__main__":
    sys.exit(main())
