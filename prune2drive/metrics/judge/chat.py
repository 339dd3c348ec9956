"""Judges: language models that score an answer against its reference, as a benchmark's rubric asks them to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from prune2drive.errors import InputError
from prune2drive.metrics.judge.endpoint import Endpoint
from prune2drive.sample import Prediction

T = TypeVar("T")
PLACEHOLDERS = ("question", "reference", "answer")
NEEDED = {"reference", "answer"}
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")  # the braces of a JSON example are none


@dataclass(frozen=True)
class Rubric(Generic[T]):
    """What a judge is asked of an answer, and how its reply is read.

    Args:
        prompt: the text, with {reference} and {answer} and, where it wants it, {question}.
        parse: from a reply to what it says, in [0, 1]; None where it does not say it.
        reference: what an answer is held against.
    """

    prompt: str
    parse: Callable[[str], T | None]
    reference: Callable[[Prediction], str]


def parse_rating(reply: str) -> float | None:
    """The one number from 0 to 100 in a reply, over 100; None where there is none, or several.

    What a model thinks aloud first, between <think> and </think>, is left out, and so is the scale: 78/100, 78 out of
    100.
    """
    said = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL)
    said = re.sub(r"(/|out of)\s*100(?:\.0+)?\b", "", said)
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", said)]
    return numbers[0] / 100 if len(numbers) == 1 and 0 <= numbers[0] <= 100 else None


RATING = Rubric(
    """You grade answers to questions about driving scenes. Compare the answer below with the reference, which is \
correct, and give it a score from 0 to 100: the closer its meaning is to the reference, the higher. Use the whole \
scale, down to single points (37, 62 or 78, say, rather than round numbers). Reply with the number and nothing else.

Reference: {reference}
Answer: {answer}""",
    parse_rating,
    lambda row: row.reference or "",
)
"""DriveLM's GPT score (challenge/gpt_eval.py of OpenDriveLab/DriveLM): its criterion, scale and form of reply."""


@dataclass(frozen=True)
class ChatJudge(Endpoint):
    """A judge behind an endpoint.

    Args:
        prompt_file: a text with {reference}, {answer} and, if it likes, {question}, in the place of the rubric's own.
    """

    key: ClassVar[str] = "judge"

    prompt_file: str | None = None

    def __call__(self, rows: Sequence[Prediction], rubric: Rubric[Any] = RATING) -> dict[str, Any]:
        """By id, what the judge says; rows whose replies could not be parsed are left out.

        Raises:
            Unanswered: the endpoint stopped answering.
        """
        prompt = self.prompt(rubric)
        return self.ask({row.id: _fill(prompt, rubric, row) for row in rows}, rubric.parse)

    def prompt(self, rubric: Rubric[Any]) -> str:
        """The text in use.

        Raises:
            InputError: a file that cannot be read, or without the places to fill.
        """
        if self.prompt_file is None:
            return rubric.prompt
        try:
            text = Path(self.prompt_file).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"judge.prompt_file={self.prompt_file}: cannot be read ({error}); check the path"
            ) from None
        places = _PLACEHOLDER.findall(text)
        if unknown := [place for place in places if place not in PLACEHOLDERS]:
            known = ", ".join(f"{{{place}}}" for place in PLACEHOLDERS)
            raise InputError(f"judge.prompt_file={self.prompt_file}: unknown {{{unknown[0]}}}; there are {known}")
        if missing := sorted(NEEDED - set(places)):
            raise InputError(
                f"judge.prompt_file={self.prompt_file}: {{{missing[0]}}} is missing; write it where it goes"
            )
        return text

    def identity(self, rubric: Rubric[Any] = RATING) -> dict[str, Any]:
        """What scores must share to be compared."""
        return {
            "base_url": self.base_url,
            "model": self.model,
            "sampling": dict(self.sampling),
            "prompt_sha256": hashlib.sha256(self.prompt(rubric).encode()).hexdigest(),
        }


def _fill(prompt: str, rubric: Rubric[Any], row: Prediction) -> str:
    texts = {"question": row.question, "reference": rubric.reference(row), "answer": row.answer or ""}
    return _PLACEHOLDER.sub(lambda place: texts[place[1]], prompt)


def identity_of(judge: Any, rubric: Rubric[Any] = RATING) -> Mapping[str, Any] | None:
    """A judge's identity; None where there is no judge, or it is a plain function."""
    return judge.identity(rubric) if hasattr(judge, "identity") else None


def key_of(judge: Any) -> str | None:
    """The metric a judge's scores are reported as: `judge`, unless it has a name of its own."""
    return getattr(judge, "key", "judge") if judge else None
