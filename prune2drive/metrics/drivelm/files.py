"""Reads and scores the DriveLM challenge's files of answers and references."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.formats.drivelm import read_scenes
from prune2drive.metrics.base import Judge
from prune2drive.metrics.drivelm.score import DriveLMScore
from prune2drive.sample import Prediction

logger = logging.getLogger(__name__)

ADVICE = "give test_eval.json"


def read_references(path: Path) -> list[Prediction]:
    """Returns the rows of the challenge's reference file, without answers and in the official order.

    Raises:
        InputError: another kind of file, or one without an answer and a tag to score by.
    """
    content, rows = read_json(path, ADVICE), []
    try:
        for asked in read_scenes(content, str(path)):
            scene, frame = asked.scene, asked.frame
            rows.append(Prediction(asked.id, asked.text, None, asked.answer, tags=asked.tags, scene=scene, frame=frame))
    except InputError as error:
        raise InputError(f"{error}; {ADVICE}") from None
    if not any(row.tags and row.reference is not None for row in rows):
        raise InputError(f"{path}: no question has both an answer and a tag to score it by; {ADVICE}")
    return rows


def read_predictions(path: Path) -> dict[str, str | None]:
    """Returns id -> answer, None for a sample that failed, from output.json, submission.json or predictions.jsonl.

    Raises:
        InputError: another kind of file, an id that occurs twice, or an answer that is not a string.
    """
    rows = read_json(path, "give output.json, submission.json or predictions.jsonl")
    rows = rows.get("results") if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        form = 'a list of {"id", "question", "answer"}, a submission with such "results", or predictions.jsonl'
        raise InputError(f"{path}: not a file of predictions; give {form}")
    answers: dict[str, str | None] = {}
    for row in rows:
        failed = row.get("error") is not None
        if row["id"] in answers:
            raise InputError(f"{path}: {row['id']} occurs twice; keep one answer per question")
        if not failed and not isinstance(row.get("answer"), str):
            raise InputError(f"{path}: the answer of {row['id']} is not a string; write it in quotes")
        answers[row["id"]] = None if failed else row["answer"]
    return answers


def score_files(
    predictions: Path, references: Path, allow_missing: bool = False, judge: Judge | None = None
) -> dict[str, float]:
    """Returns the metrics of a file of predictions.

    Args:
        predictions: a file that `read_predictions` reads.
        references: a file that `read_references` reads.
        allow_missing: leave out references that have no answer, or whose sample failed.
        judge: scores the answers that need a judge.

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
    metric = DriveLMScore(judge)
    metrics = metric([replace(row, answer=answers.get(row.id)) for row in rows])
    if not metrics:
        raise InputError(f"{predictions}: no answer to a question that {references} can score; check the ids")
    if caveat := metric.caveat(metrics):
        logger.warning(caveat)
    return metrics
