"""Draws charts with Matplotlib, as SVG inside a page, in the page's own colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

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


def bars(
    name: str,
    values: Mapping[str, float],
    mark: float | None = None,
    ranges: Sequence[tuple[float, float]] = (),
    expected: Sequence[float] = (),
) -> Markup:
    """Draws a bar for each value.

    Args:
        name: the chart's name, with which the ids of its bars begin.
        values: label -> value, none below 0.
        mark: a value that a dashed line shows across all bars.
        ranges: the lowest and highest of each value, which a thin line spans.
        expected: another value for each bar, as a stroke across it.
    """

    def draw(axes: Axes) -> None:
        drawn = axes.barh(list(values), list(values.values()), color=ACCENT)
        for label, bar in zip(values, drawn, strict=True):
            bar.set_gid(f"{name}-{label}")
        for row, (low, high) in enumerate(ranges):
            axes.plot([low, high], [row, row], color=INK, gid=f"{name}-range-{row}")
        axes.bar_label(drawn, fmt="%.3f", padding=12 if ranges else 4)
        if expected:
            axes.scatter(expected, range(len(expected)), marker="|", s=300, color=INK, gid=f"{name}-expected")
        if mark is not None:
            axes.axvline(mark, color=INK, linestyle="--", gid=f"{name}-mark")
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.margins(x=0.1)
        axes.spines[:].set_visible(False)

    return draw_svg(name, draw, 0.3 + BAR * len(values))


def draw_svg(name: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> Markup:
    """Returns a chart as an SVG element, the same for the same data.

    Args:
        name: says what the chart shows.
        draw: draws it.
        height: its height in inches; its width is that of a page.
    """
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
