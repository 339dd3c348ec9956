"""Keeps lines of text in a temporary file, so that hundreds of thousands of captions take no memory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO


class Lines(Iterable[str]):
    """Holds lines of text in a file that goes with the object; breaks within a line become spaces.

    Args:
        lines: the first lines.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()
        self._count = 0
        for line in lines:
            self.append(line)

    def append(self, line: str) -> None:
        """Adds a line."""
        text = re.sub("[\n\r\v\f\x85\u2028\u2029]", " ", line)
        self.file.write(b"\n" * bool(self._count) + text.encode(errors="replace"))
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        yield from split_lines(self.file) if self._count else ()


def split_lines(file: IO[bytes]) -> Iterator[str]:
    """Yields the lines of a file as `str.split` has them: one more than there are line ends."""
    file.seek(0)
    line = b"\n"
    for line in file:
        yield line.decode(errors="replace").removesuffix("\n")
    if line.endswith(b"\n"):
        yield ""
