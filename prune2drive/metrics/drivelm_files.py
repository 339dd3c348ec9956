"""The DriveLM challenge's files of answers and references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prune2drive.errors import InputError
from prune2drive.sample import Prediction

PARTS = ("perception", "prediction", "planning", "behavior")


def read_references(path: Path) -> list[Prediction]:
    """The challenge's reference file as rows without an answer, in the official order.

    Raises:
        InputError: not such a file, or nothing in it to score by.
    """
    rows = []
    try:
        for scene, content in _read_json(path).items():
            for frame, key_frame in content["key_frames"].items():
                for number, qa in enumerate(qa for part in PARTS for qa in key_frame["QA"].get(part, [])):
                    id, tags = f"{scene}_{frame}_{number}", tuple(qa.get("tag") or ())
                    rows.append(Prediction(id, qa["Q"], reference=qa.get("A"), tags=tags, scene=scene, frame=frame))
    except (AttributeError, KeyError, TypeError):
        form = '{scene: {"key_frames": {frame: {"QA": {"perception": [...], ...}}}}}'
        raise InputError(f"{path}: not a DriveLM reference file, {form}; give test_eval.json") from None
    for row in rows:
        texts = isinstance(row.question, str) and isinstance(row.reference, str | None)
        if not texts or not all(isinstance(tag, int) for tag in row.tags):
            raise InputError(f"{path}: {row.id} is malformed; Q and A are strings, tag a list of numbers 0 to 3")
    if not any(row.tags and row.reference is not None for row in rows):
        raise InputError(f"{path}: no question has both an answer and a tag to score it by; give test_eval.json")
    return rows


def read_predictions(path: Path) -> dict[str, str | None]:
    """Answers by id, None for a sample that failed: from a challenge output, a submission or predictions.jsonl.

    Raises:
        InputError: not such a file, an id twice, or an answer that is not a string.
    """
    rows = _read_json(path)
    rows = rows.get("results") if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        form = 'a list of {"id", "question", "answer"}, a submission with such "results", or predictions.jsonl'
        raise InputError(f"{path}: not a file of predictions; give {form}")
    answers: dict[str, str | None] = {}
    for row in rows:
        failed = row.get("error") is not None
        if row["id"] in answers:
            raise InputError(f"{path}: {row['id']} is there twice; keep one answer a question")
        if not failed and not isinstance(row.get("answer"), str):
            raise InputError(f"{path}: the answer of {row['id']} is not a string; write it in quotes")
        answers[row["id"]] = None if failed else row["answer"]
    return answers


def _read_json(path: Path) -> Any:
    """The content of a JSON file, or the list of a .jsonl file's rows."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    documents = text.split("\n") if path.suffix == ".jsonl" else [text]
    rows = []
    for line, document in enumerate(documents):
        try:
            if document.strip() or path.suffix != ".jsonl":
                rows.append(json.loads(document))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: malformed JSON in line {line + error.lineno}: {error.msg}; correct it") from None
    return rows if path.suffix == ".jsonl" else rows[0]
