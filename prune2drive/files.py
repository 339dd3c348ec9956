"""Reads and writes files: JSON whose layout is known, and writes that leave a whole file or none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from prune2drive.errors import InputError, shortened

T = TypeVar("T")

PACKAGE = Path(__file__).resolve().parent
CONFIGS = next((path for path in (PACKAGE / "configs", PACKAGE.parent / "configs") if path.is_dir()), PACKAGE)
"""Folder of the configurations: inside an installed package, beside it in a checkout."""

UNENCODABLE = "backslashreplace"  # half a surrogate pair, which UTF-8 has not, becomes JSON's \ud800


def read_json(file: Path, advice: str = "") -> Any:
    """Reads a UTF-8 JSON file, with or without a byte order mark; of a `.jsonl` file, the list of its rows.

    Args:
        advice: what to do where it is missing or damaged, appended to the message.

    Raises:
        InputError: it cannot be read, or is no JSON.
    """
    then = f"; {advice}" if advice else ""
    rows: list[Any] = []
    before = 0  # lines of a .jsonl file before the one that is parsed
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix != ".jsonl":
            return json.loads(text)
        for before, line in enumerate(text.split("\n")):  # noqa: B007  # read where a line is damaged
            if line.strip():
                rows.append(json.loads(line))
        return rows
    except json.JSONDecodeError as error:
        place = f"line {before + error.lineno}, column {error.colno}"
        raise InputError(f"{file}: not valid JSON at {place}: {error.msg}{then}") from None
    except FileNotFoundError:
        raise InputError(f"{file}: no such file{then}") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as UTF-8 text ({error}){then}") from None


def write_json(file: Path, content: Any, indent: int = 2) -> None:
    """Writes a whole JSON file or nothing, as `write_atomically`; values that JSON has not become text."""
    write_atomically(file, [json.dumps(content, indent=indent, ensure_ascii=False, default=str), "\n"])


def first_file(named: str | None, folders: Iterable[Path], name: str) -> Path:
    """Returns the file that was named or else the first of that name in the folders; the first place if none has it."""
    places = [Path(named)] if named else [folder / name for folder in folders]
    return next((place for place in places if place.is_file()), places[0])


def write_list(
    file: Path, items: Iterable[Any], content: Mapping[str, Any] | None = None, name: str = "", indent: int = 2
) -> None:
    """Writes a JSON list one item at a time, whole or not at all.

    Args:
        file: the file.
        items: values of the list.
        content: the object that holds the list as its last field; None where the file is the list alone.
        name: the list's field.
        indent: spaces of each level.

    Raises:
        InputError: the folder cannot be written.
    """

    def lines() -> Iterator[str]:
        head = "" if content is None else json.dumps({**content, name: []}, indent=indent, ensure_ascii=False)[:-3]
        depth = " " * indent * (1 if content is None else 2)
        yield head or "["
        separator = "\n"
        for item in items:
            text = json.dumps(item, indent=indent, ensure_ascii=False)
            yield separator + "\n".join(depth + line for line in text.split("\n"))
            separator = ",\n"
        close = "" if separator == "\n" else "\n" + depth[indent:]
        yield f"{close}]\n" if content is None else f"{close}]\n}}\n"

    write_atomically(file, lines())


def write_atomically(file: Path, lines: Iterable[str]) -> None:
    """Writes a whole text file or nothing.

    Raises:
        InputError: the folder cannot be written.
    """

    def write(draft: Path) -> None:
        with draft.open("w", encoding="utf-8", errors=UNENCODABLE) as stream:
            stream.writelines(lines)

    replace_atomically(file, write)


def replace_atomically(file: Path, write: Callable[[Path], object]) -> None:
    """Puts a file in place once it is whole: `write` makes a draft in the file's folder, with its suffix.

    Raises:
        InputError: the folder cannot be written.
    """
    draft = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        write(draft)
        draft.replace(file)
    except OSError as error:
        with suppress(OSError):  # the folder may be no folder
            draft.unlink()
        raise InputError(f"{file}: cannot be written ({error.strerror or error}); choose another folder") from error


def field(holder: Any, name: str, kind: type[T], where: str, optional: bool = False) -> T:
    """Returns `holder[name]`, which the layout says is a `kind`.

    Args:
        kind: the Python type of its value.
        where: the place of the object in its file, for the message.
        optional: whether the field may be absent or null, which gives an empty value.

    Raises:
        InputError: the value is of another kind, or is missing.
    """
    if not isinstance(holder, dict):
        raise InputError(f"{where}: expected an object with the field '{shortened(name)}', found {kind_of(holder)}")
    value = holder.get(name)
    if value is None and optional:
        return kind()
    if not isinstance(value, kind):
        found = kind_of(value) if name in holder else "nothing"
        raise InputError(f"{where}: field '{shortened(name)}' should be {kind_of(kind())}, found {found}")
    return value


def kind_of(value: Any) -> str:
    """Names the JSON type of a value."""
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")
