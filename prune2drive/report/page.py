"""Renders self-contained HTML pages from the template files of a package."""

from __future__ import annotations

import jinja2

ROOM = "prune2drive.report"


def render(template: str, package: str = ROOM, **content: object) -> str:
    """Returns a page with its style and pictures inside, readable in light and dark surroundings.

    Args:
        template: file name under the package's `templates/`; it extends `base.html`, which needs a `title`, and
            fills the blocks `body` and, for CSS of its own, `style`.
        package: import name of the package that holds the template.
        content: variables of the template; text is escaped unless it is `markupsafe.Markup`.
    """
    loader = jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys((package, ROOM))])
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(content)
