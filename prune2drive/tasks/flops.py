"""Counts tokens, FLOPs and KV cache at several keep ratios from a model's configuration: `run.py task=flops`.

No weights are read: shapes and tokens come from the processor, operations from the formulas in
`metrics.flops`, the vision tower's from its own code on PyTorch's meta device.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers.utils import logging as transformers_logging

from prune2drive.data.dataset import multi_view_prompt
from prune2drive.errors import InputError
from prune2drive.metrics.flops import VisionFlops, decoder_flops, kv_cache_bytes, layer_lengths, lm_head_flops
from prune2drive.models.adapter import Adapter
from prune2drive.mosaic import Mosaic
from prune2drive.pruning import Pruner
from prune2drive.pruning.selection import budget
from prune2drive.results.run_folder import RunFolder
from prune2drive.sample import IMAGE_MARKER, Sample
from prune2drive.tasks.components import build, refuse_options

log = logging.getLogger(__name__)

KV_BYTES = 2  # of one number, in half precision


@dataclass(frozen=True)
class Row:
    """What a prompt costs at one keep ratio; FLOPs count a multiply-add as two.

    Args:
        text: prompt positions that are no image's.
        newlines: image positions that show nothing and are never dropped.
        vision: FLOPs of tower and projector; None for towers that cannot be counted without pixels.
        ratio: of the decoder's prefill to the one with all tokens.
    """

    keep: float
    visual: int
    kept: int
    text: int
    newlines: int
    vision: int | None
    selection: int
    prefill: int
    ratio: float
    lm_head: int
    kv_bytes: int


def run(cfg: DictConfig) -> float:
    """Prints the table and writes it to flops.json in the run folder.

    Returns:
        The FLOPs ratio of the last row.

    Raises:
        InputError: a model or pruner that cannot be built, or a keep ratio outside (0, 1].
    """
    refuse_options(cfg, "task=flops", ("shard", "resume"))
    transformers_logging.set_verbosity_error()
    keeps = [float(keep) for keep in cfg.task.keep]
    if not keeps or not all(0 < keep <= 1 for keep in keeps):
        raise InputError(f"task.keep={list(cfg.task.keep)}: give one or more ratios above 0, up to 1")
    if cfg.task.text is not None and (not isinstance(cfg.task.text, int) or cfg.task.text < 1):
        raise InputError(f"task.text={cfg.task.text}: use a whole number, 1 or more, or null")
    folder = RunFolder(cfg.folder)
    adapter, source = _adapter(cfg)
    layers = adapter.text_config.num_hidden_layers
    pruner: Pruner = build(cfg.pruner).resolve(layers)
    table = rows(adapter, pruner, _sample(cfg.task), keeps, cfg.task.text, cfg.rounding)
    folder.write_json(
        "flops.json", {"model": source, "pruner": cfg.names.pruner, "rows": [asdict(row) for row in table]}
    )
    where = f"at layer {', '.join(map(str, pruner.cuts))}" if pruner.cuts else "keeps all tokens"
    Console().print(_table(f"{source} · {cfg.names.pruner} {where}", table))
    return table[-1].ratio


def _adapter(cfg: DictConfig) -> tuple[Adapter, str]:
    """Returns the model's adapter and the source of its shape: its checkpoint or, without one, its YAML."""
    try:
        return build(cfg.model), str(cfg.model.get("checkpoint") or cfg.names.model)
    except InputError:
        if not cfg.model.get("published"):
            raise
        log.warning("%s is not at hand: its shape as published is taken from the model's YAML", cfg.model.checkpoint)
        return build(cfg.model, checkpoint=None), f"{cfg.names.model} (published shape)"


def _sample(task: Any) -> Sample:
    """Makes a question about blank photos."""
    width, height = task.image
    mosaic = Mosaic(task.layout) if task.layout else None
    cameras = mosaic.cameras if mosaic else tuple(task.cameras)
    prompt = f"{IMAGE_MARKER}\n{task.question}" if mosaic else multi_view_prompt(cameras, task.question)
    images = {camera: Image.new("RGB", (width, height)) for camera in cameras}
    return Sample("", images, task.question, prompt, mosaic=mosaic)


def rows(
    adapter: Adapter, pruner: Pruner, sample: Sample, keeps: list[float], text: int | None, rounding: str
) -> list[Row]:
    """Returns one row for each keep ratio.

    Args:
        adapter: of the model; its weights are not loaded.
        pruner: fitted to the decoder's depth; drops the same ratio of every camera.
        sample: the question and its images.
        keeps: keep ratios in (0, 1].
        text: prompt positions that are no image's; None counts them.
        rounding: see `budget`.
    """
    config, prompts = adapter.text_config, adapter.collate([sample])
    token_map, layers = prompts.token_maps[0], adapter.text_config.num_hidden_layers
    counts = token_map.counts
    visual = sum(counts.values())
    placeholders = int((prompts.inputs["input_ids"] == adapter.config.image_token_id).sum())
    if text is None:
        text = token_map.length - placeholders
    rest = text + placeholders - visual
    try:
        vision: int | None = VisionFlops(adapter.config)(prompts.inputs)
    except InputError as error:
        log.warning("the vision tower is left out: %s", error)
        vision = None
    full = decoder_flops(config, [visual + rest] * layers)
    table = []
    for keep in keeps:
        budgets = {camera: budget(keep, count, rounding) if pruner.cuts else count for camera, count in counts.items()}
        kept = sum(budgets.values())
        pools = (
            [(counts[camera], budgets[camera]) for camera in counts] if pruner.scope != "global" else [(visual, kept)]
        )
        left = [[count, *(min(size, count) for size in pruner.sizes(k, count))] for count, k in pools]
        kept_after = [sum(sizes) for sizes in zip(*left, strict=True)][1:]
        stages = [(cut, size + rest) for cut, size in zip(pruner.cuts, kept_after, strict=True)]
        lengths = layer_lengths(layers, visual + rest, stages)
        steps = [step for each in left for step in pairwise(each)]
        chosen = sum(pruner.flops(*step, config.hidden_size) for step in steps) if keep < 1 else 0
        prefill = decoder_flops(config, lengths)
        cache = kv_cache_bytes(config, lengths, KV_BYTES)
        newlines, head = placeholders - visual, lm_head_flops(config)
        table.append(Row(keep, visual, kept, text, newlines, vision, chosen, prefill, prefill / full, head, cache))
    return table


def _table(title: str, found: list[Row]) -> Table:
    """Makes a table with a column for each keep ratio."""
    first = found[0]
    table = Table(
        title=title, caption=f"text tokens: {first.text}, newlines: {first.newlines}; cache in half precision"
    )
    for name in ("", *(f"{row.keep:.4g}" for row in found)):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("visual tokens", *(f"{row.kept} of {row.visual}" for row in found))
    for part in ("vision", "selection", "prefill", "lm_head"):
        values = [getattr(row, part) for row in found]
        table.add_row(f"FLOPs, {part}", *("" if value is None else metric_prefix(value) for value in values))
    table.add_row("prefill, share of full", *(f"{row.ratio:.1%}" for row in found))
    table.add_row("KV cache, bytes", *(metric_prefix(row.kv_bytes) for row in found))
    return table


def metric_prefix(value: float) -> str:
    """Formats a number with three digits and a prefix, such as 73.4 T."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"
