"""Writes numbers as a person would round them."""

from __future__ import annotations

from prune2drive.metrics.base import Column
from prune2drive.metrics.intervals import Interval

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def percent(share: float) -> str:
    """Returns a share in percent, with as many decimals as tell it from none and all: `90.5 %`, `9 %`, `0.04 %`."""
    value = 100 * share
    is_whole = value == 0 or value >= 0.5 and float(f"{value:.1f}").is_integer()
    digits = 0 if is_whole else 1 if value >= 0.1 else 2
    return f"{value:.{digits}f}{NBSP}%"


def points(interval: Interval, with_range: bool = True) -> str:
    """Returns a difference of shares in points, with its interval: `−7.0 [−10.2, −3.9]`."""
    low, high = (_signed(100 * edge) for edge in (interval.low, interval.high))
    return _signed(100 * interval.value) + (f" [{low},{NBSP}{high}]" if with_range else "")


def share_range(interval: Interval) -> str:
    """Returns a share with its interval, where it has one: `90.5 % [86.4, 94.6]`."""
    if interval.low == interval.high:
        return percent(interval.value)
    return f"{percent(interval.value)} [{100 * interval.low:.1f},{NBSP}{100 * interval.high:.1f}]"


def number(value: float) -> str:
    """Returns a number with three digits, or all digits before the point: `36`, `105.6`, `4,374`, `0.488`."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return (text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text).replace("-", MINUS)


def flops(count: float) -> str:
    """Returns a number of floating-point operations: `1.41 GFLOPs`."""
    scale, prefix = next(((scale, prefix) for scale, prefix in PREFIXES if count >= scale), (1, ""))
    return f"{number(count / scale)} {prefix}FLOPs"


def milliseconds(time: float) -> str:
    """Returns a time: `35.8 ms`, `1.5 s`."""
    return f"{number(time / 1000)} s" if time >= 1000 else f"{number(time)} ms"


def ranged(interval: Interval, column: Column) -> str:
    """Returns a metric as its column says it is shown, with its interval, where it has one: `30 ms [27.2, 32.8]`."""
    if column.is_share:
        return share_range(interval)
    if interval.low == interval.high:
        return shown(interval.value, column)
    low, high = (number(edge * column.scale) for edge in (interval.low, interval.high))
    return f"{shown(interval.value, column)} [{low},{NBSP}{high}]"


def shown(value: float, column: Column) -> str:
    """Returns a metric's value as its column says it is shown."""
    if column.is_share:
        return percent(value)
    return f"{number(value * column.scale)} {column.unit}".rstrip()


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)
