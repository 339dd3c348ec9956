"""Draws the charts of a search with Matplotlib, as SVG inside a page, in the page's own colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from prune2drive.search.trials import Trial, best_so_far, pareto

if TYPE_CHECKING:  # Matplotlib is imported only when something is drawn
    from matplotlib.axes import Axes

INK, FAINT, LINE, ACCENT, BAD = (f"#00000{digit}" for digit in range(1, 6))
PAGE_COLOURS = {INK: "--ink", FAINT: "--faint", LINE: "--line", ACCENT: "--accent", BAD: "--bad"}
STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "text.color": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "svg.fonttype": "none",
}
WIDTH, HEIGHT, BAR = 7.5, 3.2, 0.3  # inches: of a chart, and the height of one bar


def history(trials: Sequence[Trial]) -> Markup:
    """Draws the objective of each trial and the best so far; failed trials are crosses on the axis."""
    done = [trial for trial in trials if trial.objective is not None]
    failed = [trial.number for trial in trials if trial.objective is None]
    values = [trial.objective or 0.0 for trial in done]
    tops = [(trial.number, top) for trial, top in zip(trials, best_so_far(trials), strict=True) if top is not None]

    def draw(axes: Axes) -> None:
        axes.scatter([trial.number for trial in done], values, s=12, color=FAINT, alpha=0.6, gid="history-trials")
        on_axis: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        axes.scatter(failed, [0] * len(failed), marker="x", color=BAD, gid="history-failed", **on_axis)
        axes.step(*zip(*tops, strict=True), where="post", color=ACCENT, gid="history-best")
        axes.set(xlabel="trial", ylabel="objective")
        axes.locator_params("x", integer=True)
        axes.grid(axis="y")

    return _svg("objective of each trial", draw)


def front(trials: Sequence[Trial]) -> Markup:
    """Draws reward against mean ratio, with the Pareto front in the accent colour."""
    best = pareto(trials)
    others = [trial for trial in trials if trial.reward is not None and trial not in best]

    def draw(axes: Axes) -> None:
        for group, colour, name in ((others, FAINT, "front-others"), (best, ACCENT, "front-best")):
            means, rewards = [trial.mean for trial in group], [trial.reward or 0.0 for trial in group]
            axes.scatter(means, rewards, s=16, color=colour, gid=name)
        axes.step(means, rewards, where="post", color=ACCENT)
        axes.set(xlabel="mean ratio", ylabel="R")
        axes.grid(axis="y")

    return _svg("reward against mean ratio", draw)


def bars(name: str, values: Mapping[str, float], mark: float | None = None) -> Markup:
    """Draws a bar for each value.

    Args:
        name: the chart's name, with which the ids of its bars begin.
        values: label -> value, none below 0.
        mark: a value that a dashed line shows across all bars.
    """

    def draw(axes: Axes) -> None:
        drawn = axes.barh(list(values), list(values.values()), color=ACCENT)
        for label, bar in zip(values, drawn, strict=True):
            bar.set_gid(f"{name}-{label}")
        axes.bar_label(drawn, fmt="%.3f", padding=4)
        if mark is not None:
            axes.axvline(mark, color=INK, linestyle="--", gid=f"{name}-mark")
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.margins(x=0.1)
        axes.spines[:].set_visible(False)

    return _svg(name, draw, 0.3 + BAR * len(values))


def _svg(name: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> Markup:
    """Returns a chart as an SVG element, the same for the same data."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file = io.StringIO()
    with rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot(axisbelow=True))
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = file.getvalue()
    for colour, variable in PAGE_COLOURS.items():
        drawn = drawn.replace(colour, f"var({variable})")
    return Markup(drawn[drawn.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1))
