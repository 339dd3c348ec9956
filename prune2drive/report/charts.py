"""Draws charts with Matplotlib: as SVG in a page, in the page's own colours, and as PNG and SVG files for a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from prune2drive.files import replace_atomically, write_atomically

if TYPE_CHECKING:  # Matplotlib is imported only when something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE, ACCENT, BAD, GOOD = (f"page:{name}" for name in ("ink", "faint", "line", "accent", "bad", "good"))
"""Names of colours, which a page and a paper show differently."""
IN_PAGE = {name: f"#00000{digit}" for digit, name in enumerate((INK, FAINT, LINE, ACCENT, BAD, GOOD), start=1)}
IN_PAPER = {INK: "#000000", FAINT: "#555555", LINE: "#cccccc", ACCENT: "#b45309", BAD: "#b91c1c", GOOD: "#18704a"}
STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "text.color": FAINT,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "svg.fonttype": "none",
}
WIDTH, HEIGHT, BAR = 7.5, 3.2, 0.3  # inches: of a chart, and the height of one bar
DPI = 300  # of PNG files


@dataclass(frozen=True)
class Chart:
    """A chart, which is drawn when it is asked for.

    Args:
        name: says what the chart shows; its files are named by it.
        draw: draws it.
        height: its height in inches; its width is that of a page.
        caption: says in one sentence what to read off it.
    """

    name: str
    draw: Callable[[Axes], None]
    height: float = HEIGHT
    caption: str = ""

    def svg(self) -> Markup:
        """Returns the chart as an SVG element in the page's colours, the same for the same data."""
        drawn = self._coloured({name: f"var(--{name.removeprefix('page:')})" for name in IN_PAGE})
        drawn = drawn[drawn.index("<svg") :]
        return Markup(drawn.replace("<svg", f'<svg role="img" aria-label="{escape(self.name)}"', 1))

    def save(self, folder: Path) -> None:
        """Writes the chart as PNG and SVG files for a paper, black on white.

        Raises:
            InputError: the folder cannot be written.
        """
        name = re.sub(r"[^A-Za-z0-9]+", "_", self.name).strip("_")
        write_atomically(folder / f"{name}.svg", [self._coloured(IN_PAPER)])
        with _figure(self, IN_PAPER) as figure:
            write = partial(figure.savefig, format="png", dpi=DPI, facecolor="white")
            replace_atomically(folder / f"{name}.png", write)

    @cached_property
    def _drawn(self) -> str:
        """The chart as an SVG file in the colours of `IN_PAGE`."""
        file = io.StringIO()
        with _figure(self, IN_PAGE) as figure:
            figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        return file.getvalue()

    def _coloured(self, colours: Mapping[str, str]) -> str:
        """Returns the SVG file with each named colour as these have it."""
        drawn = self._drawn
        for name, code in IN_PAGE.items():
            drawn = drawn.replace(code, colours[name])
        return drawn


def bars(
    name: str,
    values: Mapping[str, float],
    mark: float | None = None,
    ranges: Sequence[tuple[float, float]] = (),
    expected: Sequence[float] = (),
) -> Chart:
    """Returns a chart with a bar for each value.

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

    return Chart(name, draw, 0.3 + BAR * len(values))


@contextmanager
def _figure(chart: Chart, colours: Mapping[str, str]) -> Iterator[Figure]:
    """Yields a chart's figure in these colours."""
    from matplotlib import rc_context
    from matplotlib.colors import get_named_colors_mapping
    from matplotlib.figure import Figure

    for name, colour in colours.items():
        get_named_colors_mapping()[name] = colour  # one by one: `update` would leave Matplotlib's cache as it was
    with rc_context(STYLE | {"svg.hashsalt": chart.name}):
        figure = Figure(figsize=(WIDTH, chart.height), layout="constrained")
        chart.draw(figure.add_subplot(axisbelow=True))
        yield figure
