"""Charts as inline SVG, coloured by the page's style, each mark with its tooltip."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 720, 300  # of a plot, in units that the page scales
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 46
BAR, LABELS, VALUES = 26, 170, 64  # of a bar chart: a row's height, the room for names and for numbers
TICKS = 6  # at most, an axis
ROOM = 0.04  # beyond the outermost marks, of their span


class Mark(NamedTuple):
    """A point of a plot.

    Args:
        y: None for what has no value: a cross on the axis.
        kind: dot, or strong for one that stands out.
    """

    x: float
    y: float | None
    title: str
    kind: str = "dot"


def plot(marks: Sequence[Mark], line: Sequence[tuple[float, float]], axes: tuple[str, str]) -> Markup:
    """Points, and stairs among them.

    Args:
        marks: at least one of them with a y.
        line: its corners, from left to right; it is level up to the next one.
        axes: names of x and y.
    """
    heights = [mark.y for mark in marks if mark.y is not None]
    x_low, x_high = _limits([mark.x for mark in marks])
    y_low, y_high = _limits(heights)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT)

    def down(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - TOP)

    parts = [_line("grid", LEFT, down(tick), right, down(tick)) for tick in ticks(y_low, y_high)]
    parts += [_text(LEFT - 8, down(tick) + 4, f"{tick:g}", "end") for tick in ticks(y_low, y_high)]
    parts += [_text(across(tick), bottom + 18, f"{tick:g}", "middle") for tick in ticks(x_low, x_high)]
    parts += [_text((LEFT + right) / 2, HEIGHT - 6, axes[0], "middle")]
    parts += [_upwards((TOP + bottom) / 2, axes[1])]
    for mark in sorted(marks, key=lambda each: each.kind == "strong"):
        x = across(mark.x)
        parts.append(_cross(x, bottom, mark) if mark.y is None else _dot(x, down(mark.y), mark))
    corners = [(across(x), down(y)) for x, y in line]
    stairs = corners[:1]
    for x_next, y_next in corners[1:]:
        stairs += [(x_next, stairs[-1][1]), (x_next, y_next)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in stairs)
    parts.append(Markup('<polyline class="line" points="{}"/>').format(path))
    return _svg(HEIGHT, parts, f"{axes[1]} against {axes[0]}")


def bars(values: Mapping[str, float], name: str, mark: float | None = None, mark_title: str = "") -> Markup:
    """A bar for each name, from 0.

    Args:
        values: none below 0.
        name: of the chart, for those who cannot see it.
        mark: a value that a line across all bars shows.
    """
    most = max([*values.values(), mark or 0.0]) or 1.0
    scale = (WIDTH - LABELS - VALUES) / most
    height = BAR * len(values)
    parts = []
    for row, (label, value) in enumerate(values.items()):
        top = row * BAR
        parts += [
            _text(LABELS - 10, top + 17, label, "end"),
            Markup('<rect class="bar" x="{}" y="{}" width="{:.1f}" height="{}"><title>{}</title></rect>').format(
                LABELS, top + 4, value * scale, BAR - 8, f"{label}: {value:.4f}"
            ),
            _text(LABELS + value * scale + 8, top + 17, f"{value:.3f}", "start"),
        ]
    if mark is not None:
        place = LABELS + mark * scale
        parts.append(
            Markup('<line class="mark" x1="{0:.1f}" y1="0" x2="{0:.1f}" y2="{1}"><title>{2}</title></line>').format(
                place, height, mark_title
            )
        )
    return _svg(height, parts, name)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two limits: 1, 2 or 5 times a power of ten apart, at most TICKS of them."""
    rough = (high - low) / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / apart - 1e-9), math.floor(high / apart + 1e-9)
    return [float(f"{number * apart:.12g}") for number in range(first, last + 1)]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Where an axis begins and ends."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        return low - 0.5, high + 0.5
    return low - ROOM * (high - low), high + ROOM * (high - low)


def _dot(x: float, y: float, mark: Mark) -> Markup:
    size = 4.5 if mark.kind == "strong" else 3
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        mark.kind, x, y, size, mark.title
    )


def _cross(x: float, y: float, mark: Mark) -> Markup:
    path = f"M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"
    return Markup('<path class="cross" d="{}"><title>{}</title></path>').format(path, mark.title)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(kind, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _upwards(middle: float, text: str) -> Markup:
    """The name of the y axis."""
    turned = Markup('<g transform="rotate(-90 14 {:.1f})">{}</g>')
    return turned.format(middle, _text(14, middle, text, "middle"))


def _svg(height: int, parts: Sequence[Markup], name: str) -> Markup:
    opening = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(name)}">'
    return Markup("\n").join([Markup(opening), *parts, Markup("</svg>")])
