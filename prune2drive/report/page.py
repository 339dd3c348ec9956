"""Renders self-contained HTML pages from the template files of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import jinja2

from prune2drive.report.charts import Chart


class Tinted(NamedTuple):
    """A cell of a table with a colour behind its text.

    Args:
        text: what it says.
        tint: the strength of the colour, up to 1; below 0 that of the opposite.
        meaning: what the colour says: a `gap`, good or bad, or a `level`, more or less.
    """

    text: str
    tint: float
    meaning: str = "gap"

    def __str__(self) -> str:
        return self.text

    @property
    def kind(self) -> str:
        """The class of the cell in a page."""
        more, less = {"gap": ("better", "worse"), "level": ("more", "less")}[self.meaning]
        return more if self.tint > 0 else less

    @property
    def strength(self) -> int:
        """The strength of the colour in percent; text stays readable on it."""
        return round(40 * min(1.0, abs(self.tint)))


class Link(NamedTuple):
    """A cell of a table that leads somewhere.

    Args:
        text: what it says.
        target: where it leads: a relative path, or what the token explorer of the same page is to show.
    """

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


class Section(NamedTuple):
    """Holds a part of a page.

    Args:
        heading: its heading.
        note: a sentence below the heading.
        charts: what is drawn below the note.
        rows: the cells of a table, the header first.
        folded: whether the table is hidden until it is asked for.
    """

    heading: str
    note: str = ""
    charts: Sequence[Chart] = ()
    rows: Sequence[Sequence[str | Tinted | Link]] = ()
    folded: bool = False


def render(template: str, **content: object) -> str:
    """Returns a page with its style and pictures inside, readable in light and dark surroundings.

    Args:
        template: file name under `templates/`; it extends `base.html`, which needs a `title`, and fills the blocks
            `body` and, for CSS of its own, `style`. `sections.html` is a page of a `sentence`,
            `facts` and `sections`.
        content: variables of the template; text is escaped unless it is `markupsafe.Markup`.
    """
    return _environment().get_template(template).render(content)


@cache
def _environment() -> jinja2.Environment:
    """Returns what keeps the compiled templates."""
    loader = jinja2.PackageLoader("prune2drive.report")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
