"""The one exception for everything a user can get wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """A bad file, option or value: one line that says what is wrong, where, and what to do.

    `run.py` prints the message alone, without a traceback.
    """


def shortened(value: Any, most: int = 80) -> str:
    """Returns a value as a message quotes it: at most `most` characters, in one line."""
    text = repr(value)[1:-1] if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def check_choice(option: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuses a value that is not one of an option's choices.

    Args:
        option: the option's name as a user writes it, such as `ratios.pool`.
        choices: what may be given; None is shown as null.

    Raises:
        InputError: the value is none of them.
    """
    allowed = list(choices)
    if value not in allowed:
        shown = ", ".join("null" if each is None else str(each) for each in allowed)
        raise InputError(f"{option}={value}: choose from {shown}")


def check_whole(option: str, value: Any, least: int = 1, null: bool = False) -> None:
    """Refuses a value that is not a whole number of at least `least`.

    Args:
        option: the option's name as a user writes it, such as `batch_size`.
        null: whether None is allowed too.

    Raises:
        InputError: the value is no such number.
    """
    if null and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{option}={value}: use a whole number, {least} or more{', or null' if null else ''}")
