"""Times the prefill of a decoder with random weights, pruned against full, beside the ratio of their FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import pairwise, product
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import AutoModelForCausalLM, PreTrainedConfig

from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.metrics.flops import decoder_flops, layer_lengths
from prune2drive.metrics.timing import timed
from prune2drive.models.pretrained import DTYPES, check_attention
from prune2drive.pruning import Pruner, Uniform, prune
from prune2drive.pruning.selection import budget
from prune2drive.tasks.benchmark.rounds import Turns, spread
from prune2drive.tasks.components import build
from prune2drive.token_map import TokenMap


def prepare(cfg: DictConfig, turns: Turns) -> Callable[[], Iterator[dict[str, Any]]]:
    """Returns what measures one row for every shape, attention, cut and keep ratio.

    Raises:
        InputError: a shape that is unknown or wrong, or a method that does not fit a decoder alone.
    """
    options, work = cfg.task.prefill, []
    for name, attention in product(options.shapes, options.attention):
        check_choice("task.prefill.shapes", name, cfg.task.shape)
        check_attention("task.prefill.attention", attention)
        shape = cfg.task.shape[name]
        for size in ("cameras", "tokens", "text"):
            check_whole(f"task.shape.{name}.{size}", shape[size])
        check_choice(f"task.shape.{name}.dtype", shape.dtype, DTYPES[1:])
        config = build(shape.decoder)
        width, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        if width % heads or heads % groups:
            raise InputError(
                f"task.shape.{name}.decoder: {heads} heads of {width} channels with {groups} key-value heads; use "
                "numbers that divide one another"
            )
        given = [build(cfg.pruner, **({} if layer is None else {"layer": layer})) for layer in options.layers]
        pruners = [pruner.resolve(config.num_hidden_layers) for pruner in given]
        if unfit := [each for each in pruners if each.traits.needs_vision or not each.cuts]:
            why = "reads the vision tower" if unfit[0].cuts else "keeps every token"
            raise InputError(f"pruner={cfg.names.pruner} {why}: choose another, or leave prefill out of task.parts")
        ways = [(pruner, Uniform(keep).keep) for pruner, keep in product(pruners, options.keep)]
        work.append(({"shape": name, "attention": attention}, shape, config, ways))
    return lambda: (row for each in work for row in measure(turns, *each))


def measure(
    turns: Turns, names: dict[str, str], shape: DictConfig, config: PreTrainedConfig, ways: list[tuple[Pruner, float]]
) -> Iterator[dict[str, Any]]:
    """Yields a row for each method and keep ratio.

    Args:
        turns: how it is measured.
        names: name of the shape and of the attention.
        shape: cameras, visual tokens of each, text and dtype.
        config: the decoder's configuration.
        ways: methods and keep ratios.
    """
    dtype, length = getattr(torch, shape.dtype), shape.text + shape.cameras * shape.tokens
    starts = [shape.text // 2 + camera * shape.tokens for camera in range(shape.cameras)]
    spans = {f"CAM_{number}": (start, start + shape.tokens) for number, start in enumerate(starts)}
    torch.manual_seed(0)
    with torch.device(turns.device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=names["attention"]).eval()
        embeddings = torch.randn(1, length, config.hidden_size, dtype=dtype)
    shares: dict[str, list[float]] = {str(way): [] for way in ways}

    def prefill(way: tuple[Pruner, float] | None) -> float:
        token_map = TokenMap.from_spans(spans, length)
        pruning: Any = prune(model, *way, token_map=token_map) if way else nullcontext()
        with torch.inference_mode(), pruning as trace, timed(model) as wall, timed(model, clock=turns.clock) as times:
            model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        if way:
            shares[str(way)].append(trace.select_seconds / wall.prefill)
        return times.prefill

    taken = turns.take({str(way): partial(prefill, way) for way in (None, *ways)})
    for way in ways:
        yield names | {
            "layers": " ".join(map(str, way[0].cuts)),
            "keep": way[1],
            **spread("full_ms", [1000 * seconds for seconds in taken[str(None)]]),
            **spread("time_ratio", taken[str(way)], taken[str(None)]),
            "flops_ratio": flops_ratio(shape, config, *way, causal=False),
            "causal_flops_ratio": flops_ratio(shape, config, *way, causal=True),
            **spread("select_share", shares[str(way)][turns.warm_up :]),
        }


def flops_ratio(shape: DictConfig, config: PreTrainedConfig, pruner: Pruner, keep: float, causal: bool) -> float:
    """Returns FLOPs of the pruned prefill, selection included, over those of the full one."""
    before = [shape.tokens, *pruner.sizes(budget(keep, shape.tokens), shape.tokens)]
    positions = [shape.cameras * size + shape.text for size in before]
    lengths = layer_lengths(config.num_hidden_layers, positions[0], list(zip(pruner.cuts, positions[1:], strict=True)))
    selection = shape.cameras * sum(pruner.flops(*pool, config.hidden_size) for pool in pairwise(before))
    full = decoder_flops(config, positions[:1] * config.num_hidden_layers, causal)
    return (decoder_flops(config, lengths, causal) + selection) / full
