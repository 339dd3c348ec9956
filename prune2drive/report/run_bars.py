"""Makes the bars of a run's page: tokens, FLOPs and time by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prune2drive.report import numbers
from prune2drive.report.columns import ALL_TOKENS, PRUNED
from prune2drive.results.run_folder import IN_FULL

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
        n = metrics.get("time/prefill_ms_n", 0)
        parts = {
            name: {"vision": metrics.get(f"{IN_FULL if name == ALL_TOKENS else ''}time/vision_ms"), **run}
            for name, run in runs.items()
        }
        found.append(_bars("Time to the first word", parts, numbers.milliseconds, f"mean of {n:.0f} questions, alone"))
    return [each for each in found if each]


def _bars(heading: str, runs: Mapping[str, Mapping[str, float | None]], written: object, note: str = "") -> Bars:
    parts = list(dict.fromkeys(part for run in runs.values() for part, value in run.items() if value))
    assert callable(written)
    bars: dict[str, tuple[list[float], str]] = {}
    for name, run in runs.items():
        values = [run.get(part) or 0.0 for part in parts]
        if run.get(next(iter(run))) is not None and values not in [before for before, _ in bars.values()]:
            bars[name] = values, written(sum(values))
    return Bars(heading, parts, bars, note)
