"""A judge that is a language model behind an endpoint and is asked with a benchmark's rubric."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from prune2drive.errors import InputError
from prune2drive.metrics.base import OFFICIAL, Rubric
from prune2drive.metrics.judge.endpoint import Endpoint
from prune2drive.sample import Prediction

T = TypeVar("T")
PLACEHOLDERS = ("question", "reference", "answer")
REQUIRED = {"reference", "answer"}
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")  # the braces of a JSON example are none


@dataclass(frozen=True)
class ChatJudge(Endpoint):
    """A judge behind an endpoint; its scores are the official ones.

    Args:
        prompt_file: a text with {reference}, {answer} and, optionally, {question}, used instead of the rubric's prompt.
    """

    key: ClassVar[str] = OFFICIAL

    prompt_file: str | None = None

    def __call__(self, rows: Sequence[Prediction], rubric: Rubric[T]) -> dict[str, T]:
        """Returns id -> what the rubric parses, without the rows whose replies could not be parsed.

        Raises:
            JudgeUnavailable: the endpoint stopped answering.
        """
        prompt = self.prompt(rubric)
        return self.ask({row.id: _fill(prompt, rubric, row) for row in rows}, rubric.parse)

    def prompt(self, rubric: Rubric[Any]) -> str:
        """Returns the text of the prompt file, or else of the rubric.

        Raises:
            InputError: the file cannot be read, or lacks a placeholder.
        """
        if self.prompt_file is None:
            return rubric.prompt
        option = f"judge.prompt_file={self.prompt_file}"
        try:
            text = Path(self.prompt_file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{option}: cannot be read ({error}); check the path") from None
        names = _PLACEHOLDER.findall(text)
        if unknown := [name for name in names if name not in PLACEHOLDERS]:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise InputError(f"{option}: unknown placeholder {{{unknown[0]}}}; there are {known}")
        if missing := sorted(REQUIRED - set(names)):
            raise InputError(f"{option}: the placeholder {{{missing[0]}}} is missing; add it to the text")
        return text

    def identity(self, rubric: Rubric[Any]) -> Mapping[str, Any]:
        """Returns what two judges must share for their scores to be comparable."""
        return {
            "base_url": self.base_url,
            "model": self.model,
            "sampling": dict(self.sampling),
            "prompt_sha256": hashlib.sha256(self.prompt(rubric).encode()).hexdigest(),
        }


def _fill(prompt: str, rubric: Rubric[Any], row: Prediction) -> str:
    texts = {"question": row.question, "reference": rubric.reference(row), "answer": row.answer or ""}
    return _PLACEHOLDER.sub(lambda place: texts[place[1]], prompt)
