"""What DriveLM's judge is asked: one rating from 0 to 100 (challenge/gpt_eval.py of OpenDriveLab/DriveLM)."""

from __future__ import annotations

import re

from prune2drive.metrics.base import Rubric


def parse_rating(reply: str) -> float | None:
    """Returns the one number from 0 to 100 in a reply, over 100; None for a reply with no such number or several.

    Text between <think> and </think> is ignored, and so is the scale, as in "78/100" and "78 out of 100".
    """
    text = re.sub(r"<think>.*?</think>", "", reply, flags=re.DOTALL)
    text = re.sub(r"(/|out of)\s*100(?:\.0+)?\b", "", text)
    numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
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
"""The criterion, scale and form of reply of DriveLM's GPT score."""
