"""A search for keep ratios as one self-contained page: `report.html` in the sweep's folder.

    python -m prune2drive.search.page SWEEP_FOLDER

writes it again, while the search goes on or afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from prune2drive.cameras import short_name
from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.report.style import render
from prune2drive.search.charts import Mark, bars, plot
from prune2drive.search.ledger import FEWEST, Ledger, open_ledger
from prune2drive.search.trials import Point, best, best_so_far, has_one_total, pareto

REPORT = "report.html"


class Section(NamedTuple):
    """A part of the page: a chart or a table, or a sentence in its place.

    Args:
        rows: of a table, the header first.
    """

    heading: str
    note: str = ""
    chart: Markup | None = None
    rows: Sequence[Sequence[str]] = ()


def write_search_report(folder: Path, ledger: Ledger) -> Path:
    """Writes `report.html` into the sweep's folder, whole or not at all.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written.
    """
    points = sorted(ledger.points, key=lambda point: point.number)
    about, verdict = ledger.about, ledger.verdict
    html = render(
        BODY,
        title=f"Keep ratios of {about['model']} on {about['dataset']}" if about else f"Keep ratios: {ledger.name}",
        sentence=_sentence(verdict, points),
        style=CHARTS,
        facts=_facts(ledger, points),
        sections=[
            _winner(verdict, points),
            *(_tested(verdict, points) if verdict else []),
            _history(points),
            _importance(ledger),
            _front(points),
            *([_failures(points)] if any(point.error for point in points) else []),
        ],
    )
    write_atomically(folder / REPORT, [html])
    return folder / REPORT


def _sentence(verdict: Mapping[str, Any], points: Sequence[Point]) -> str:
    """What came of it so far, in plain words."""
    if not verdict:
        return "There is no verdict yet: validation and test follow the last trial."
    later = len(points) - verdict["trials"]
    return verdict["sentence"] + (f" This was said before the last {later} trials." if later > 0 else "")


def _facts(ledger: Ledger, points: Sequence[Point]) -> dict[str, str]:
    about, identity = ledger.about, ledger.identity
    failed = sum(bool(point.error) for point in points)
    planned = f" of {about['trials']}" if about else ""
    facts = {"study": ledger.name, "trials": f"{len(points)}{planned}, {failed} failed"}
    if about:
        sizes = ", ".join(f"{name} {size}" for name, size in about["questions"].items())
        facts |= {"proposed by": f"{about['engine']} {about['sampler']}", "pruner": about["pruner"], "questions": sizes}
    if identity:
        reward = " + ".join(f"{weight:g} {key}" for key, weight in identity["objective"].items())
        total = f", mean {identity['keep']:g}" if "keep" in identity else ""
        symmetric = ", left and right alike" if identity["symmetric"] else ""
        facts["space"] = f"{identity['space']}{total}, each from {identity['low']:g} to 1{symmetric}"
        facts["objective"] = f"R - {identity['penalty']:g} * sum of the ratios, R = {reward}"
    if winner := best(points):
        facts["best"] = f"trial {winner.number}: objective {winner.objective:.4f}, R {winner.reward:.4f}"
    return facts


def _history(points: Sequence[Point]) -> Section:
    heading = "History"
    if best(points) is None:
        return Section(heading, "No trial has succeeded.")
    marks = [Mark(point.number, point.objective, _title(point)) for point in points]
    tops = zip(points, best_so_far(points), strict=True)
    line = [(float(point.number), top) for point, top in tops if top is not None]
    note = "The objective of each trial, and the best so far; crosses are trials that failed."
    return Section(heading, note, plot(marks, line, ("trial", "objective")))


def _winner(verdict: Mapping[str, Any], points: Sequence[Point]) -> Section:
    number = verdict.get("winner")
    winner = next((point for point in points if point.number == number), best(points))
    if winner is None:
        return Section("Best ratios", "No trial has succeeded.")
    heading = f"{'Best ratios so far' if number is None else 'The winner'}: trial {winner.number}"
    note = f"The line is the same total shared out evenly, {winner.mean:.3f} for each camera."
    return Section(heading, note, bars(winner.ratios, heading, winner.mean, f"uniform: {winner.mean:.4f}"))


def _importance(ledger: Ledger) -> Section:
    heading = "Importance"
    values = ledger.importance()
    if not values:
        return Section(heading, f"Not to be told: it takes {FEWEST} successful trials that are not all worth the same.")
    what = "weight" if ledger.identity.get("space") == "simplex" else "ratio"
    note = f"How far each {what} decides whether a trial's {ledger.explains} is among the best (PED-ANOVA); sum 1."
    return Section(heading, note, bars(values, heading))


def _front(points: Sequence[Point]) -> Section:
    heading = "Reward and kept share"
    front = pareto(points)
    if has_one_total(points) or not front:
        share = f", {points[0].mean:g} of the tokens" if points else ""
        return Section(heading, f"All trials keep the same total{share}, so there is no front.")
    numbers = {point.number for point in front}
    done = [point for point in points if point.reward is not None]
    kinds = {point.number: "strong" if point.number in numbers else "dot" for point in done}
    marks = [Mark(point.mean, point.reward, _title(point), kinds[point.number]) for point in done]
    line = [(point.mean, point.reward or 0.0) for point in front]
    note = "Strong points are the Pareto front: no other trial has a higher R for no larger total."
    rows = [_header(front[0]), *map(_row, front)]
    return Section(heading, note, plot(marks, line, ("mean ratio", "R")), rows)


def _tested(verdict: Mapping[str, Any], points: Sequence[Point]) -> list[Section]:
    tested = [["ratios", "R", "searched minus these", "95 % interval"]]
    for each in verdict["tested"]:
        value, *interval = each["ahead"] or (None,)
        between = f"[{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
        tested.append([each["name"], _number(each["reward"]), "" if value is None else f"{value:+.4f}", between])
    finalists = {point.number: point for point in points}
    rows = [(finalists[each["trial"]], each["objective"]) for each in verdict["validated"]]
    validated = [_header(rows[0][0], "objective, validation")]
    validated += [[*_row(point), _number(value)] for point, value in rows]
    paired = "Differences are paired by question, their intervals bootstrapped over frames."
    return [
        Section("On the test split", paired, rows=tested),
        Section("Finalists on the validation split", rows=validated),
    ]


def _failures(points: Sequence[Point]) -> Section:
    numbers: dict[str, list[str]] = {}
    for point in points:
        if point.error:
            numbers.setdefault(point.error, []).append(str(point.number))
    rows = [["error", "trials"], *([error, ", ".join(each)] for error, each in numbers.items())]
    return Section("Failed trials", "error.txt in a trial's folder has its traceback.", rows=rows)


def _header(point: Point, *more: str) -> list[str]:
    return ["trial", *point.ratios, "mean", "R", "objective", *more]


def _row(point: Point) -> list[str]:
    return [str(point.number), *map(_number, [*point.ratios.values(), point.mean, point.reward, point.objective])]


def _title(point: Point) -> str:
    """A trial's tooltip."""
    ratios = " ".join(f"{short_name(camera)} {ratio:.3f}" for camera, ratio in point.ratios.items())
    worth = f"failed: {point.error}" if point.error else f"R {point.reward:.4f}, objective {point.objective:.4f}"
    return f"trial {point.number}: {worth}\n{ratios}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


CHARTS = """\
svg { display: block; width: 100%; max-width: 60rem; margin-top: .8rem; }
svg text { fill: var(--faint); font-size: 12px; }
.grid { stroke: var(--line); }
.dot { fill: var(--faint); fill-opacity: .6; }
.strong, .bar { fill: var(--accent); }
.line { fill: none; stroke: var(--accent); stroke-width: 1.5; }
.cross { stroke: var(--bad); stroke-width: 1.5; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; }
.card + .card { margin-top: 1rem; }
.scroll { overflow-x: auto; }
.scroll td { white-space: pre-line; }
p { margin: 0; }
"""

BODY = """\
<p class="card"><b>{{ sentence }}</b></p>
<dl class="card">
{% for heading, text in facts.items() %}
<dt>{{ heading }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl>
{% for section in sections %}
<section class="card">
<h3>{{ section.heading }}</h3>
{% if section.note %}
<p class="faint">{{ section.note }}</p>
{% endif %}
{% if section.chart %}
{{ section.chart }}
{% endif %}
{% if section.rows %}
<div class="scroll">
<table>
{% for row in section.rows %}
{% set tag = "th" if loop.first else "td" %}
<tr>{% for cell in row %}<{{ tag }}>{{ cell }}</{{ tag }}>{% endfor %}</tr>
{% endfor %}
</table>
</div>
{% endif %}
</section>
{% endfor %}
</body>
</html>
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a search's report.html again, from its ledger.")
    parser.add_argument("folder", type=Path, metavar="SWEEP_FOLDER")
    folder = parser.parse_args(arguments).folder
    try:
        print(write_search_report(folder, open_ledger(folder)))
    except InputError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
