"""Returns the charts of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prune2drive.report.charts import ACCENT, BAD, FAINT, Chart
from prune2drive.search.trials import Trial, best_so_far, pareto

if TYPE_CHECKING:  # Matplotlib is imported only when something is drawn
    from matplotlib.axes import Axes


def history(trials: Sequence[Trial]) -> Chart:
    """Shows the objective of each trial and the best so far; failed trials are crosses on the axis."""
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

    return Chart("objective of each trial", draw)


def front(trials: Sequence[Trial]) -> Chart:
    """Shows reward against mean ratio, with the Pareto front in the accent colour."""
    best = pareto(trials)
    others = [trial for trial in trials if trial.reward is not None and trial not in best]

    def draw(axes: Axes) -> None:
        for group, colour, name in ((others, FAINT, "front-others"), (best, ACCENT, "front-best")):
            means, rewards = [trial.mean for trial in group], [trial.reward or 0.0 for trial in group]
            axes.scatter(means, rewards, s=16, color=colour, gid=name)
        axes.step(means, rewards, where="post", color=ACCENT)
        axes.set(xlabel="mean ratio", ylabel="R")
        axes.grid(axis="y")

    return Chart("reward against mean ratio", draw)
