"""Compares answers more leniently than benchmarks do, for scores that are named so and enter no official one."""

from __future__ import annotations

import re

# A letter that stands alone or begins the text with a mark behind it, and one that is called the answer. "A" before
# another word is taken as the article.
_ALONE = re.compile(r"^\W*([A-Z])(?:\W*$|[.):,](?=\s|$))")
_CALLED = re.compile(r"\b(?:answer|option|choice)(?:\s+is)?(?:\s+option)?[\s:*(\"']+([A-Z])\b(?!(?<=A)\s+\w)", re.I)


def plain(text: str) -> str:
    """Returns the words of a text in lower case, without punctuation."""
    return " ".join(re.sub(r"[^\w\s]", " ", text).casefold().split())


def letter(text: str) -> str | None:
    """Returns the option that a text chooses: A for "A", "A. Turn left." or "The correct answer is A".

    None where it names no option, or several.
    """
    named = {found[1] for pattern in (_ALONE, _CALLED) for found in pattern.finditer(text) if found[1].isupper()}
    return named.pop() if len(named) == 1 else None


def is_right(answer: str, reference: str) -> bool:
    """Returns whether an answer means its reference, however it is put.

    Where the reference is an option's letter, the answer has to choose it; where it is yes or no, to begin with it;
    any other reference has to be the answer but for case and punctuation.
    """
    if re.fullmatch(r"[A-Z]", reference.strip().rstrip(".)")):
        return letter(answer) == reference.strip()[0]
    said, wanted = plain(answer), plain(reference)
    return said == wanted or (wanted in ("yes", "no") and said.split()[:1] == [wanted])
