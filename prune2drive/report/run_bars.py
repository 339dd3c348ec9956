"""Makes the bars of a run's page: tokens, FLOPs and time by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prune2drive.metrics.base import Column
from prune2drive.metrics.efficiency import COLUMNS
from prune2drive.report import numbers
from prune2drive.report.columns import ALL_TOKENS, PRUNED, spread
from prune2drive.results.run_folder import IN_FULL

TIME = Column("time", unit="ms")

Metrics = Mapping[str, float]


class Bars(NamedTuple):
    """Bars of one scale, in parts.

    Args:
        heading: what they show.
        parts: the names of the parts, in the order in which a bar has them.
        bars: name -> (value of each part, the value as text).
        note: a sentence about them.
    """

    heading: str
    parts: Sequence[str]
    bars: Mapping[str, tuple[Sequence[float], str]]
    note: str = ""

    @property
    def most(self) -> float:
        """The longest bar's value."""
        return max(sum(parts) for parts, _ in self.bars.values())


def bars_of(metrics: Metrics) -> list[Bars]:
    """Returns tokens, FLOPs and time by part, with all tokens above the pruned run where both are known."""
    found = []
    text = metrics.get("tokens/text")
    if "tokens/visual_full" in metrics:
        found.append(
            _bars(
                "Tokens of a prompt",
                {
                    ALL_TOKENS: {"visual": metrics["tokens/visual_full"], "text": text},
                    PRUNED: {"visual": metrics.get("tokens/visual_kept"), "text": text},
                    "mean of layers": {"visual": metrics.get("tokens/layer_average"), "text": text},
                },
                numbers.number,
            )
        )
    if "flops/prefill_full" in metrics:
        vision = metrics.get("flops/vision")
        found.append(
            _bars(
                "FLOPs of a question, without its answer",
                {
                    ALL_TOKENS: {"vision": vision, "decoder": metrics["flops/prefill_full"]},
                    PRUNED: {
                        "vision": vision,
                        "decoder": metrics.get("flops/prefill_pruned"),
                        "selection": metrics.get("flops/selection"),
                    },
                },
                numbers.flops,
            )
        )
    if "time/prefill_ms" in metrics:
        select = metrics.get("time/select_ms") or 0.0
        runs = {PRUNED: {"decoder": metrics["time/prefill_ms"] - select, "selection": select}}
        if IN_FULL + "time/prefill_ms" in metrics:
            runs = {ALL_TOKENS: {"decoder": metrics[IN_FULL + "time/prefill_ms"]}, **runs}
        parts = {
            name: {"vision": metrics.get(f"{IN_FULL if name == ALL_TOKENS else ''}time/vision_ms"), **run}
            for name, run in runs.items()
        }
        found.append(_bars("Time to the first word", parts, numbers.milliseconds, _measured(metrics)))
    return [each for each in found if each]


def _measured(metrics: Metrics) -> str:
    """Says what the times are means of, and how far they are known."""
    keys = {f"with {ALL_TOKENS}": f"{IN_FULL}time/prefill_ms", PRUNED: "time/prefill_ms", "": "time/prefill_ratio"}
    columns = [TIME, TIME, COLUMNS["time/prefill_ratio"]]
    found = {
        name: numbers.ranged(interval, column)
        for (name, key), column in zip(keys.items(), columns, strict=True)
        if (interval := spread(metrics, key, column)) and interval.n > 1
    }
    n = metrics.get("time/prefill_ms_n", 0)
    said = f"Mean of {n:,.0f} questions, each answered alone"
    if not found:
        return f"{said}."
    ratio = found.pop("", "")
    times = ", ".join(f"{text} {name}" for name, text in found.items())
    return f"{said}, with 95 % intervals: prefill {times}{f', which is {ratio}' if ratio else ''}."


def _bars(heading: str, runs: Mapping[str, Mapping[str, float | None]], written: object, note: str = "") -> Bars:
    parts = list(dict.fromkeys(part for run in runs.values() for part, value in run.items() if value))
    assert callable(written)
    bars: dict[str, tuple[list[float], str]] = {}
    for name, run in runs.items():
        values = [run.get(part) or 0.0 for part in parts]
        if run.get(next(iter(run))) is not None and values not in [before for before, _ in bars.values()]:
            bars[name] = values, written(sum(values))
    return Bars(heading, parts, bars, note)
