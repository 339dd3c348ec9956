"""Renders self-contained HTML pages from the template files of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jinja2
from markupsafe import Markup


class Section(NamedTuple):
    """Holds a part of a page.

    Args:
        heading: its heading.
        note: a sentence below the heading.
        chart: an SVG element.
        rows: the cells of a table, the header first.
        folded: whether the table is hidden until it is asked for.
    """

    heading: str
    note: str = ""
    chart: Markup = Markup("")
    rows: Sequence[Sequence[str]] = ()
    folded: bool = False


def render(template: str, **content: object) -> str:
    """Returns a page with its style and pictures inside, readable in light and dark surroundings.

    Args:
        template: file name under `templates/`; it extends `base.html`, which needs a `title`, and fills the blocks
            `body` and, for CSS of its own, `style`. `sections.html` shows a `sentence`, `facts` and `sections`.
        content: variables of the template; text is escaped unless it is `markupsafe.Markup`.
    """
    loader = jinja2.PackageLoader("prune2drive.report")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(content)
