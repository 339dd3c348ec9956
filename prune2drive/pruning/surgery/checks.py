"""Loud errors where pruning inside a model cannot be right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.ratios import Allocator, RatioPolicy
from prune2drive.pruning.surgery.cut import Call, Forward
from prune2drive.pruning.vision import check_tower


def check_options(positions: str, rounding: str, budget_axis: str) -> None:
    """Names that do not exist."""
    if positions not in ("keep", "renumber"):
        raise InputError(f"positions={positions!r}: choose 'keep' or 'renumber'")
    if rounding not in ("nearest", "seed"):
        raise InputError(f"rounding={rounding!r}: choose 'nearest' or 'seed'")
    if budget_axis not in ("final", "layer_average"):
        raise InputError(f"budget_axis={budget_axis!r}: choose 'final' or 'layer_average'")


def check_decoder(decoder: Any, pruner: Pruner) -> None:
    """A decoder that has no such layer, or whose layers cannot be pruned."""
    config, layers = decoder.config, getattr(decoder, "layers", None)
    if layers is None:
        raise InputError(f"{type(decoder).__name__} has no `layers`: it is no decoder that can be pruned")
    deepest = pruner.fit(len(layers)).cuts[-1]
    if deepest >= len(layers):
        raise InputError(f"layer={deepest}: the decoder's layers are 0 to {len(layers) - 1}")
    attention = config._attn_implementation
    if pruner.weighs and attention not in ("sdpa", "eager"):
        raise InputError(
            f"{type(pruner).__name__} weighs attention by the tokens that a slot stands for, which {attention!r} "
            "cannot: load the model with attention sdpa or eager"
        )
    layer_types = getattr(config, "layer_types", None) or ()
    if "sliding_attention" in layer_types or (not layer_types and getattr(config, "sliding_window", None)):
        raise InputError(f"{config.model_type}: sliding-window attention layers cannot be pruned")


def check_model(config: Any, pruner: Pruner) -> None:
    """A family that lacks what the method reads; `config` is the whole model's, and may be a bare decoder's."""
    if lack := pruner.lacks(config):
        raise InputError(f"{type(pruner).__name__}: {lack}")
    if pruner.needs_vision:
        check_tower(config, type(pruner).__name__)


def check_policy(policy: RatioPolicy, pruner: Pruner) -> None:
    """A budget that is shared between cameras, for a method that does not tell them apart."""
    if isinstance(policy, Allocator) and pruner.drops and pruner.scope == "global":
        raise InputError(
            f"{type(policy).__name__} ratios share a budget between the cameras, and with scope=global "
            f"{type(pruner).__name__} makes one pool of them: set pruner.scope=per_camera, or use ratios=uniform"
        )


def check_forward(cache: Any, mask: Any) -> None:
    """Caches and masks that cannot differ between layers."""
    if getattr(cache, "is_compileable", False):
        raise InputError("a static KV cache cannot hold layers of different lengths: use the default dynamic cache")
    if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
        raise InputError("pruning rebuilds the attention mask: pass attention_mask as [batch, length]")


def check_prompt(call: Call, pruner: Pruner, last_ids: Tensor | None) -> None:
    """A prompt that is no whole prompt, or outputs that a pruned one does not have.

    Args:
        last_ids: the previous prompt's ids where no cache is used.
    """
    ids, behind = call.input_ids, call.logits_to_keep
    if ids is not None and last_ids is not None and torch.equal(ids[:, :-1], last_ids):
        raise InputError("without a KV cache every token would prune the prompt anew: generate with use_cache=True")
    if isinstance(behind, Tensor) and pruner.drops:
        raise InputError("logits_to_keep names positions of the full prompt, pruned away by then: give a number")
    if pruner.needs_attention and isinstance(behind, int) and behind > 1:
        raise InputError(
            f"{type(pruner).__name__} scores by the prompt's last position, but logits_to_keep={behind} says "
            "that the prompt has more behind it: leave it out, and generate without prompt lookup or an assistant"
        )


def check_continuation(call: Call, step: Forward, width: int, last_position: Tensor | int | None) -> None:
    """Later tokens that bring images, or whose positions nothing tells.

    Args:
        width: number of tokens.
        last_position: the prompt's highest position id where it was cut before the LLM, whose cache then
            no longer tells how long the prompt was; else None.
    """
    if call.brings_images:
        raise InputError("images in a later chunk: pruning needs the whole prompt in one forward pass")
    if last_position is None:
        return
    if not step.span or not call.tells_positions:
        raise InputError("with layer=0 the cache no longer tells positions: pass position_ids when decoding by hand")
    if width > 1 and (step.span[0] <= last_position).any():
        raise InputError("with layer=0 the cache no longer tells what was seen: continue with layer=1 or higher")
