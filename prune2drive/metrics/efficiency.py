"""Computes what a run cost: tokens, FLOPs, seconds and memory per sample."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from transformers import PreTrainedConfig

from prune2drive.errors import InputError
from prune2drive.metrics.base import Column
from prune2drive.metrics.flops import decoder_flops, kv_cache_bytes, layer_lengths
from prune2drive.metrics.statistics import RunningMean
from prune2drive.sample import Prediction

COLUMNS = {
    "tokens/visual_full": Column("visual tokens"),
    "tokens/nominal": Column("budget", in_run=False, in_comparison=True),
    "tokens/visual_kept": Column("kept", in_comparison=True, is_cost=True, axis="visual tokens after the last cut"),
    "tokens/layer_average": Column(
        "layer avg", in_run=False, in_comparison=True, is_cost=True, axis="visual tokens, mean over all layers"
    ),
    "flops/ratio": Column(
        "FLOPs",
        in_comparison=True,
        is_cost=True,
        unit="%",
        scale=100,
        axis="FLOPs of the prefill, % of those of all tokens",
    ),
    "time/vision_ms": Column("vision ms, alone"),
    "time/select_ms": Column("select ms, alone", in_comparison=True),
    "time/prefill_ms": Column(
        "prefill ms, alone", in_comparison=True, is_cost=True, axis="prefill of one question at a time, ms"
    ),
    "time/prefill_ratio": Column("prefill time", in_comparison=True, in_terminal=False, unit="%", scale=100),
    "time/decode_ms_per_token": Column("decode ms per token, alone"),
    "time/samples_per_s": Column("samples per s, whole run"),
}


@dataclass
class Efficiency:
    """Turns rows of predictions into the `tokens/`, `flops/`, `time/` and `memory/` numbers of a run.

    Args:
        text_config: the decoder's configuration, `model.config.get_text_config()`.
        dtype_bytes: the bytes of one number in the KV cache, `model.dtype.itemsize`.
    """

    text_config: PreTrainedConfig
    dtype_bytes: int = 2

    def __post_init__(self) -> None:
        self._prompt_costs = lru_cache(1024)(self._count_prompt)  # most prompts of a run are of few lengths

    def compute(self, rows: Iterable[Prediction], peak_mb: float | None = None) -> dict[str, float]:
        """Returns the flat metrics, without rows that have an error and without numbers that no row has.

        FLOPs are those of the decoder's prefill, MB are 1e6 bytes, `memory/kv_cache_mb` is the KV cache of one
        sample after the prefill. Every mean has `_n` and `_stderr`. `flops/ratio` is pruned by full FLOPs, and
        `time/samples_per_s` samples by the seconds that one process spent on them, reading images included.

        Args:
            rows: the predictions of one run; read once.
            peak_mb: `peak_memory_mb` of the run.

        Raises:
            InputError: every row has an error, or the token counts of a row contradict its stages.
        """
        means: dict[str, RunningMean] = defaultdict(RunningMean)
        samples, seconds = 0, 0.0
        for row in rows:
            if row.error is not None:
                continue
            self._add_tokens(means, row)
            samples += 1
            seconds += row.seconds or 0.0
        if not samples:
            raise InputError("no sample was answered, so there is no cost to report")
        table = {name: value for key, each in means.items() for name, value in each.flat(key).items()}
        table["flops/ratio"] = table["flops/prefill_pruned"] / table["flops/prefill_full"]
        if seconds:
            table["time/samples_per_s"] = samples / seconds
        if peak_mb is not None:
            table["memory/peak_mb"] = peak_mb
        return table

    def _add_tokens(self, means: Mapping[str, RunningMean], row: Prediction) -> None:
        visual, kept = sum(row.full_counts.values()), sum(row.kept_counts.values())
        if (row.stages[-1][1] if row.stages else visual) != kept:
            raise InputError(f"{row.id}: {kept} of {visual} tokens were kept, not what its stages {row.stages} say")
        average, full_flops, flops, cache = self._prompt_costs(visual, row.text_tokens, tuple(row.stages))
        means["tokens/visual_full"].add(visual)
        means["tokens/visual_kept"].add(kept)
        means["tokens/layer_average"].add(average)
        means["tokens/text"].add(row.text_tokens)
        for name, count in (("nominal", row.nominal), ("raw", row.raw)):
            if count is not None:
                means[f"tokens/{name}"].add(count)
        for stage, (_, count) in enumerate(row.stages, start=1):
            means[f"tokens/stage_{stage}"].add(count)
        for camera, count in row.kept_counts.items():
            means[f"tokens/{camera}/kept"].add(count)
        means["flops/prefill_full"].add(full_flops)
        means["flops/prefill_pruned"].add(flops)
        for part, count in row.flops.items():
            means[f"flops/{part}"].add(count)
        means["memory/kv_cache_mb"].add(cache / 1e6)

    def _count_prompt(self, visual: int, text: int, stages: tuple[tuple[int, int], ...]) -> tuple[float, int, int, int]:
        """Returns mean visual tokens of a layer, FLOPs in full and pruned, and bytes of the KV cache of a prompt."""
        config, layers = self.text_config, self.text_config.num_hidden_layers
        visual_lengths = layer_lengths(layers, visual, stages)
        lengths = [length + text for length in visual_lengths]
        full, pruned = (decoder_flops(config, each) for each in ([visual + text] * layers, lengths))
        return sum(visual_lengths) / layers, full, pruned, kv_cache_bytes(config, lengths, self.dtype_bytes)


def budget_share(metrics: Mapping[str, float]) -> float | None:
    """Returns the share of the visual tokens that a run's ratios ask for, or that it kept where nothing asks.

    Args:
        metrics: what `Efficiency.compute` returned; may hold other metrics too. Without token counts there is no share.
    """
    full = metrics.get("tokens/visual_full")
    asked = metrics.get("tokens/nominal", metrics.get("tokens/visual_kept"))
    return asked / full if full and asked is not None else None
