"""The repository's Markdown pages, and the blocks and links in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "examples").glob("*.md")),
    *sorted((REPOSITORY / "prune2drive/minidrive/checkpoints").glob("*/README.md")),
]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
ENVIRONMENT = re.compile(r"[A-Z_]+=\S*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, without the indentation of a list around it."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"

    @property
    def file(self) -> str:
        """Returns the file that the block is, if its first line is a comment with a file's name; else nothing."""
        named = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return named[1] if named else ""


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """Yields a page's fenced blocks, all or those of some languages."""
    text = page.read_text(encoding="utf-8")
    for fence in FENCE.finditer(text):
        if not languages or fence["language"] in languages:
            indent = len(fence["indent"])
            inside = "".join(line[indent:] for line in fence["text"].splitlines(keepends=True))
            yield Block(page, text.count("\n", 0, fence.start()) + 1, fence["language"], inside)


def prose(page: Path) -> str:
    """Returns a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(block: Block) -> Iterator[list[str]]:
    """Yields the words of every command of a shell block, without comments and variables set in front."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command.append(word)
            elif command:
                yield command[next(at for at, each in enumerate(command) if not ENVIRONMENT.fullmatch(each)) :]
                command = []


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
