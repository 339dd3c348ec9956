"""How the project's pages look, in light and in dark surroundings."""

import jinja2
from markupsafe import Markup

STYLE = Markup("""\
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff; --ink: #1d2025; --faint: #6b7280; --line: #e3e5e8;
  --accent: #b45309; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f24; --ink: #e8e9eb; --faint: #9aa1ac;
  --line: #2e333b; --accent: #fbbf24; --bad: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .75rem; font-size: 1.6rem; }
h2 { margin: 2.5rem 0 1rem; font-size: 1.15rem; }
h3 { margin: 0 0 .5rem; font-size: .95rem; }
code { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
.command { display: block; padding: .6rem .8rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; white-space: pre-wrap; }
.faint, dt, th { color: var(--faint); font-weight: normal; }
.tiles, .tables { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); }
.tiles { margin: 1rem 0; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.card { padding: 1rem 1.2rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card + .card.example { margin-top: 1rem; }
.tables .wide { grid-column: 1 / -1; }
.big { font-size: 1.7rem; font-weight: 600; color: var(--accent); font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
.kept span { display: inline-block; margin-right: 1.2rem; font-variant-numeric: tabular-nums; }
.bad { color: var(--bad); }
img { display: block; width: 100%; margin-top: .8rem; border-radius: 6px; }
""")

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
{{ style }}
</style>
</head>
<body>
<h1>{{ title }}</h1>
"""


def render(body: str, title: str, style: str = "", **content: object) -> str:
    """A self-contained page.

    Args:
        body: template of what stands below the title, and the end of the page.
        style: what this page has beside the common style.
        content: of the template.
    """
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(HEAD + body)
    return page.render(title=title, style=STYLE + Markup(style), **content)
