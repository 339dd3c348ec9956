"""Draws a comparison's charts: the score against each cost, and heat maps by kind of question and by camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from prune2drive.cameras import short_name
from prune2drive.metrics.base import Column
from prune2drive.metrics.intervals import Interval
from prune2drive.metrics.simultaneous import pareto_front
from prune2drive.report.charts import ACCENT, BAD, FAINT, GOOD, INK, LINE, Chart
from prune2drive.report.comparison.findings import Findings
from prune2drive.report.comparison.tables import camera_budgets, scores_by_kind

if TYPE_CHECKING:  # Matplotlib is imported only when something is drawn
    from matplotlib.axes import Axes

ROW = 0.19  # inches between labels
LOG_FROM = 5  # a ratio of the largest cost to the smallest from which their axis is logarithmic


class Point(NamedTuple):
    """A run in a chart.

    Args:
        cost: what it costs, in the unit of the axis.
        worth: what it scores, in percent.
        spread: the interval of the score; None where it is unknown.
        series: what it has in common with runs of other budgets.
    """

    cost: float
    worth: float
    spread: Interval | None
    series: str


def front_charts(found: Findings) -> dict[str, Chart]:
    """Returns key of the cost -> the score against it, for costs that differ between runs."""
    if found.worth is None:
        return {}
    charts = {}
    for key, column in found.costs.items():
        points = _points(found, key, column)
        if len({point.cost for point in points}) > 1:
            worth = found.columns[found.worth].label
            said = found.questions.label if found.questions and not found.differs_from_score else worth
            name = f"{worth} against {column.label}"
            chart = front_chart(points, f"{said}, %", column.axis or column.label, name)
            charts[key] = replace(chart, caption=_caption(found, key, points))
    return charts


def _caption(found: Findings, key: str, points: Sequence[Point]) -> str:
    """Says what to read off a chart, and how many questions it is of."""
    worth = found.worth or ""
    best = len(pareto_front([point.cost for point in points], [point.worth for point in points]))
    labels = [found.columns[name].label for name in (worth, key)]
    of, timed = found.count(worth), found.count(key)
    if timed in ("", of):
        counted = f"; n = {of} questions" if of else ""
    else:
        counted = f"; n = {of} questions for {labels[0]}, {timed} for {labels[1]}"
    return (
        f"Higher and further left is better: the accent line joins the runs that no other beats in both {labels[0]} "
        f"and {labels[1]}, {best} of {len(points)}{counted}."
    )


def _points(found: Findings, key: str, column: Column) -> list[Point]:
    worth = found.worth or ""
    runs = [run for run in found.runs if key in run.metrics and worth in run.metrics]
    return [
        Point(run.metrics[key] * column.scale, 100 * run.metrics[worth], found.interval(run, worth), run.series)
        for run in runs
    ]


def front_chart(points: Sequence[Point], worth: str, cost: str, name: str) -> Chart:
    """Returns a chart of worth against cost, with a line for each series and the Pareto front in the accent colour.

    Series are named at the right edge, where labels can be kept apart, and a thin line leads to each.
    """
    front = [points[place] for place in pareto_front([p.cost for p in points], [p.worth for p in points])]
    series = {point.series: [p for p in points if p.series == point.series] for point in points}
    height = max(3.4, ROW * len(series) + 1)

    def draw(axes: Axes) -> None:
        costs = [point.cost for point in points]
        if min(costs) > 0 and max(costs) / min(costs) > LOG_FROM:
            _logarithmic(axes)
        for point in points:
            if point.spread:
                ends = [100 * point.spread.low, 100 * point.spread.high]
                axes.plot([point.cost] * 2, ends, color=LINE, linewidth=1.2, zorder=1)
        for members in series.values():
            ordered = sorted(members)
            axes.plot(*_xy(ordered), color=FAINT, linewidth=0.8, alpha=0.7, zorder=2)
        others = [point for point in points if point not in front]
        axes.scatter(*_xy(others), s=16, color=FAINT, zorder=3, gid="others")
        axes.step(*_xy(front), where="post", color=ACCENT, linewidth=1.4, zorder=4, gid="front-line")
        axes.scatter(*_xy(front), s=26, color=ACCENT, zorder=5, gid="front")
        axes.set(xlabel=cost, ylabel=worth)
        axes.grid(axis="y", linewidth=0.6)
        last = {name: max(members) for name, members in series.items()}
        _label(axes, last, {point.series for point in front}, height)

    return Chart(name, draw, height)


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.cost for point in points], [point.worth for point in points]


def _logarithmic(axes: Axes) -> None:
    """Makes the x axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _label(axes: Axes, ends: dict[str, Point], marked: set[str], height: float) -> None:
    """Names each series at the right edge, in the order of their last points, and at least a line apart."""
    from matplotlib.collections import LineCollection

    scale = math.log if axes.get_xscale() == "log" else float
    left, right = map(scale, axes.get_xlim())
    low, high = axes.get_ylim()
    axes.set(xlim=axes.get_xlim(), ylim=(low, high))
    names = sorted(ends, key=lambda name: ends[name].worth)
    places = [((scale(ends[n].cost) - left) / (right - left), (ends[n].worth - low) / (high - low)) for n in names]
    heights = spread_apart([at for _, at in places], ROW / (height - 0.8))
    leaders = [[place, (1.02, at)] for place, at in zip(places, heights, strict=True)]
    style: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    axes.add_collection(
        LineCollection(leaders, color=FAINT, linewidth=0.6, linestyle=(0, (1, 3)), **style), autolim=False
    )
    for name, at in zip(names, heights, strict=True):
        axes.text(1.03, at, name, color=ACCENT if name in marked else INK, fontsize=9, va="center", **style)


def spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Returns ascending places in [0, 1], moved as little as it takes for each to be a gap above the one before.

    Where they do not fit, they go on above 1.
    """
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap if moved else 0.0))
    most = max(1.0, gap * (len(moved) - 1))
    for at in reversed(range(len(moved))):
        moved[at] = min(moved[at], most)
        most = moved[at] - gap
    return moved


class HeatMap(NamedTuple):
    """A table of coloured cells.

    Args:
        name: what it shows.
        rows: labels of the rows.
        columns: labels of the columns.
        texts: what stands in the cells.
        heat: how far each cell is good, up to 1, or bad, down to -1; None where that is unknown.
        colours: those of good and of bad.
    """

    name: str
    rows: Sequence[str]
    columns: Sequence[str]
    texts: Sequence[Sequence[str]]
    heat: Sequence[Sequence[float | None]]
    colours: tuple[str, str] = (GOOD, BAD)

    def chart(self) -> Chart:
        """Returns it as a chart."""
        return Chart(self.name, self._draw, 1.1 + 0.24 * len(self.rows))

    def _draw(self, axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for row, (line, values) in enumerate(zip(self.texts, self.heat, strict=True)):
            for column, (text, value) in enumerate(zip(line, values, strict=True)):
                colour, strength = self.colours[(value or 0) < 0], 0.55 * min(1.0, abs(value or 0))
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=strength, linewidth=0))
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=INK)
        axes.set_xlim(-0.5, len(self.columns) - 0.5)
        axes.set_ylim(len(self.rows) - 0.5, -0.5)
        axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        axes.set_xticks(range(len(self.columns)), self.columns, rotation=35, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(self.rows)), self.rows)
        axes.spines[:].set_visible(False)


def kind_heat(found: Findings) -> HeatMap | None:
    """Returns the scores by kind of question, coloured by how far they are from the baseline's."""
    scores = scores_by_kind(found)
    if not scores or not found.questions or not found.differences:
        return None
    base = found.differences.kind_score[found.differences.baseline]
    gaps = [[score - base[kind] for kind, score in row.items()] for _, row in scores]
    most = max(0.1, *(abs(gap) for row in gaps for gap in row))
    return HeatMap(
        "scores by kind of question",
        [run.label for run, _ in scores],
        [kind or "other" for kind in found.questions.kinds],
        [[f"{100 * score:.1f}" for score in row.values()] for _, row in scores],
        [[gap / most for gap in row] for row in gaps],
    )


def about_camera_heat(found: Findings) -> HeatMap | None:
    """Returns the scores of the questions that name each camera, coloured by how far they are from the baseline's."""
    questions = found.questions
    if not questions or found.baseline not in questions.runs:
        return None
    places: dict[str, list[int]] = {camera: [] for camera in camera_budgets(found)[0]}
    silent = [place for place, named in enumerate(questions.cameras) if not named]
    for place, named in enumerate(questions.cameras):
        for camera in named:
            places.setdefault(camera, []).append(place)
    about = {short_name(camera): at for camera, at in places.items() if at}
    if len(about) < 2:
        return None
    about |= {"no camera": silent} if silent else {}
    scores = dict(zip(questions.runs, questions.score_RN, strict=True))
    means = {run: [float(score_N[at].mean()) for at in about.values()] for run, score_N in scores.items()}
    runs = [run for run in found.runs if run in means]
    gaps = [[mean - base for mean, base in zip(means[run], means[found.baseline], strict=True)] for run in runs]
    most = max(0.1, *(abs(gap) for row in gaps for gap in row))
    return HeatMap(
        "scores by camera that a question names",
        [run.label for run in runs],
        [f"{name} ({len(at):,})" for name, at in about.items()],
        [[f"{100 * mean:.1f}" for mean in means[run]] for run in runs],
        [[gap / most for gap in row] for row in gaps],
    )


def camera_heat(found: Findings) -> HeatMap | None:
    """Returns the tokens kept of each camera, coloured by how far they are from the run's mean over its cameras."""
    cameras, budgets = camera_budgets(found)
    if len(cameras) < 2:
        return None
    means = [fmean(count for count in counts if count is not None) or 1.0 for _, counts in budgets]
    return HeatMap(
        "tokens of each camera",
        [run.label for run, _ in budgets],
        [short_name(camera) for camera in cameras],
        [["" if count is None else f"{count:,.0f}" for count in counts] for _, counts in budgets],
        [
            [None if count is None else count / mean - 1 for count in counts]
            for (_, counts), mean in zip(budgets, means, strict=True)
        ],
        (ACCENT, FAINT),
    )
