"""Reading JSON files whose layout is known, so that what is wrong is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from prune2drive.errors import InputError

T = TypeVar("T")


def read_json(file: Path) -> Any:
    """The content of a UTF-8 JSON file, with or without a byte order mark.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            return json.load(stream)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text ({error})") from None


def field(holder: Any, name: str, kind: type[T], where: str, optional: bool = False) -> T:
    """`holder[name]`, which the layout says is a `kind`; an empty one where it may be absent or null, and is.

    Raises:
        InputError: another kind, or nothing there.
    """
    if not isinstance(holder, dict):
        raise InputError(f"{where}: expected an object with the field {name!r}, found {kind_of(holder)}")
    value = holder.get(name)
    if value is None and optional:
        return kind()
    if not isinstance(value, kind):
        found = kind_of(value) if name in holder else "nothing"
        raise InputError(f"{where}: field {name!r} should be {kind_of(kind())}, found {found}")
    return value


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")
