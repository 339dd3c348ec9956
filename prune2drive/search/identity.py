"""Compares what makes the trials of two searches comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prune2drive.errors import InputError

UNSET = "not set"


def check_identity(study: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to mix the trials of two searches.

    A class is compared by its name alone, so that a search survives a move of the class to another module.

    Args:
        study: the study's name.
        before: what the study's trials have in common, as its storage returns it.
        now: the same of the search that is to use the study.

    Raises:
        InputError: the first option that differs.
    """
    for option, was, is_now in _differences(before, now):
        version = "; an earlier version of prune2drive may have begun it" if UNSET in (was, is_now) else ""
        raise InputError(
            f"study {study}: its trials are of another search: {option} was {was}, now {is_now}{version}; "
            "choose another search.study"
        )


def _differences(was: Any, now: Any, option: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the options that differ, with both values."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in {**was, **now}:
            yield from _differences(was.get(key, UNSET), now.get(key, UNSET), f"{option}.{key}".strip("."))
    elif option.endswith("_target_") and str(was).split(".")[-1] == str(now).split(".")[-1]:
        return
    elif was != now:
        yield option, was, now
