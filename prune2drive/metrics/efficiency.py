"""What a run cost: tokens, FLOPs, seconds and memory per sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from transformers import PreTrainedConfig

from prune2drive.errors import InputError
from prune2drive.metrics.base import Column
from prune2drive.metrics.flops import decoder_flops, kv_cache_bytes, layer_lengths
from prune2drive.sample import Prediction

COLUMNS = {
    "tokens/visual_full": Column("visual tokens"),
    "tokens/nominal": Column("budget", in_run=False, in_comparison=True),
    "tokens/visual_kept": Column("kept", in_comparison=True),
    "tokens/layer_average": Column("layer avg", in_run=False, in_comparison=True),
    "flops/ratio": Column("FLOPs", in_comparison=True),
    "time/vision_ms": Column("vision ms"),
    "time/select_ms": Column("select ms", in_comparison=True),
    "time/prefill_ms": Column("prefill ms", in_comparison=True),
    "time/decode_ms_per_token": Column("decode ms per token"),
    "time/samples_per_s": Column("samples per s"),
}


class RunningMeans:
    """Means of named numbers that arrive one at a time (Welford's recurrence)."""

    def __init__(self) -> None:
        self._moments: dict[str, tuple[int, float, float]] = {}

    def add(self, key: str, value: float) -> None:
        count, mean, squares = self._moments.get(key, (0, 0.0, 0.0))
        step = value - mean
        mean += step / (count + 1)
        self._moments[key] = (count + 1, mean, squares + step * (value - mean))

    def flat(self) -> dict[str, float]:
        """`key`, `key_n` and `key_stderr`, the standard error of the mean: 0 for a single number."""
        table: dict[str, float] = {}
        for key, (count, mean, squares) in self._moments.items():
            stderr = math.sqrt(squares / (count - 1) / count) if count > 1 else 0.0
            table |= {key: mean, f"{key}_n": count, f"{key}_stderr": stderr}
        return table


class BatchTimes:
    """Seconds per sample of phases that were timed a batch at a time.

    Samples of a batch share its time, so batches, not samples, are what the standard error counts.
    """

    def __init__(self) -> None:
        self._batches: dict[str, tuple[int, dict[str, float]]] = {}

    def add(self, batch: str, seconds: Mapping[str, float]) -> None:
        """One more sample of a batch, with its share of the batch's time."""
        count, total = self._batches.get(batch, (0, {}))
        self._batches[batch] = (count + 1, {key: total.get(key, 0.0) + value for key, value in seconds.items()})

    def total(self, phase: str) -> float:
        """Seconds of all samples."""
        return sum(total.get(phase, 0.0) for _, total in self._batches.values())

    def flat(self, phase: str, key: str) -> dict[str, float]:
        """`key` in milliseconds a sample, its standard error over batches, and their number; empty if never timed."""
        parts = [(count, total[phase]) for count, total in self._batches.values() if phase in total]
        if not parts:
            return {}
        samples = sum(count for count, _ in parts)
        mean = sum(total for _, total in parts) / samples
        squares = sum((total - count * mean) ** 2 for count, total in parts)
        stderr = math.sqrt(squares * len(parts) / (len(parts) - 1)) / samples if len(parts) > 1 else 0.0
        return {key: 1000 * mean, f"{key}_n": len(parts), f"{key}_stderr": 1000 * stderr}


@dataclass
class Efficiency:
    """Turns rows of predictions into the `tokens/`, `flops/`, `time/` and `memory/` numbers of a run.

    Args:
        text_config: the decoder's configuration, `model.config.get_text_config()`.
        dtype_bytes: bytes of one number in the KV cache, `model.dtype.itemsize`.
    """

    text_config: PreTrainedConfig
    dtype_bytes: int = 2

    def compute(self, rows: Iterable[Prediction], peak_mb: float | None = None) -> dict[str, float]:
        """The flat metrics; rows with an error are left out, and so are numbers that no row carries.

        FLOPs are those of the decoder's prefill (see `flops.py`), MB are 1e6 bytes, `memory/kv_cache_mb`
        is what the prefill of one sample leaves behind. Each mean has `_n` and `_stderr`; for times these
        count batches. The rates `flops/ratio`, `time/decode_ms_per_token` and `time/samples_per_s` are
        quotients of sums: pruned by full FLOPs, decoding time by decode steps (the prefill gives the
        first token), and samples by their vision, prefill and decode time, of which selection is a part.

        Args:
            rows: predictions of one run; read once.
            peak_mb: `peak_memory_mb` of the run.

        Raises:
            InputError: no row without an error, or token counts that contradict a row's stages.
        """
        means, times = RunningMeans(), BatchTimes()
        samples = steps = 0
        for row in rows:
            if row.error is not None:
                continue
            self._add_tokens(means, row)
            times.add(row.batch or row.id, row.times)
            samples += 1
            steps += max(row.new_tokens - 1, 0)
        if not samples:
            raise InputError("no sample was answered, so there is no cost to report")
        table = means.flat()
        table["flops/ratio"] = table["flops/prefill_pruned"] / table["flops/prefill_full"]
        for phase in ("vision", "select", "prefill"):
            table |= times.flat(phase, f"time/{phase}_ms")
        if steps and times.total("decode"):
            table["time/decode_ms_per_token"] = 1000 * times.total("decode") / steps
        if busy := sum(times.total(phase) for phase in ("vision", "prefill", "decode")):
            table["time/samples_per_s"] = samples / busy
        if peak_mb is not None:
            table["memory/peak_mb"] = peak_mb
        return table

    def _add_tokens(self, means: RunningMeans, row: Prediction) -> None:
        visual, kept = sum(row.full_counts.values()), sum(row.kept_counts.values())
        if (row.stages[-1][1] if row.stages else visual) != kept:
            raise InputError(f"{row.id}: {kept} of {visual} tokens were kept, which its stages {row.stages} do not say")
        layers = self.text_config.num_hidden_layers
        visual_lengths = layer_lengths(layers, visual, row.stages)
        full_lengths = [visual + row.text_tokens] * layers
        lengths = [length + row.text_tokens for length in visual_lengths]
        means.add("tokens/visual_full", visual)
        means.add("tokens/visual_kept", kept)
        means.add("tokens/layer_average", sum(visual_lengths) / layers)
        means.add("tokens/text", row.text_tokens)
        for name, count in (("nominal", row.nominal), ("raw", row.raw)):
            if count is not None:
                means.add(f"tokens/{name}", count)
        for stage, (_, count) in enumerate(row.stages, start=1):
            means.add(f"tokens/stage_{stage}", count)
        for camera, count in row.kept_counts.items():
            means.add(f"tokens/{camera}/kept", count)
        means.add("flops/prefill_full", decoder_flops(self.text_config, full_lengths))
        means.add("flops/prefill_pruned", decoder_flops(self.text_config, lengths))
        for part, count in row.flops.items():
            means.add(f"flops/{part}", count)
        means.add("memory/kv_cache_mb", kv_cache_bytes(self.text_config, lengths, self.dtype_bytes) / 1e6)
