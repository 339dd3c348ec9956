"""Refuses what cannot be pruned right, in one line, as early as it can be known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.ratios import Allocator, RatioPolicy
from prune2drive.pruning.surgery.forward import ForwardPass, ModelCall
from prune2drive.pruning.vision import check_tower


def validate(
    pruner: Pruner,
    policy: RatioPolicy,
    config: Any,
    *,
    positions: str | None = None,
    rounding: str = "nearest",
    budget_axis: str = "final",
) -> Pruner:
    """Checks everything about a pruning that can be known before the model is loaded.

    Args:
        pruner: the method.
        policy: the keep ratios.
        config: the whole model's configuration; may be a bare decoder's.
        positions: `keep`, `renumber` or None for the method's own.
        rounding: `nearest` or `seed`.
        budget_axis: `final` or `layer_average`.

    Returns:
        The method with its cuts as layers of this model's decoder.

    Raises:
        InputError: an unknown option, a cut behind the last layer, a model that lacks what the method reads, or a
            budget that is shared between cameras by a method that does not tell them apart.
    """
    check_choice("positions", positions, (None, "keep", "renumber"))
    check_choice("rounding", rounding, ("nearest", "seed"))
    check_choice("budget_axis", budget_axis, ("final", "layer_average"))
    name = type(pruner).__name__
    pruner = pruner.resolve(config.get_text_config().num_hidden_layers)
    if reason := pruner.unsupported_reason(config):
        raise InputError(f"{name}: {reason}")
    if pruner.traits.needs_vision:
        check_tower(config, name)
    if isinstance(policy, Allocator) and pruner.traits.resizes_images:
        raise InputError(
            f"{type(policy).__name__} ratios look at the tokens, and {name} needs a budget before there are any: use "
            "ratios=uniform, per_camera or adaptive"
        )
    if isinstance(policy, Allocator) and pruner.cuts and pruner.scope == "global":
        apart = "set pruner.scope=per_camera, or " if "per_camera" in pruner.traits.scopes else ""
        raise InputError(
            f"{type(policy).__name__} ratios share a budget between the cameras, and with scope=global {name} makes "
            f"one pool of them: {apart}use ratios=uniform"
        )
    return pruner


def check_decoder(decoder: Any, pruner: Pruner) -> None:
    """Checks that a decoder's layers can be pruned by a method.

    Raises:
        InputError: a module without layers, attention that cannot be weighted, or sliding-window attention.
    """
    if getattr(decoder, "layers", None) is None:
        raise InputError(f"{type(decoder).__name__} has no `layers`: it is no decoder that can be pruned")
    config = decoder.config
    attention = config._attn_implementation
    if pruner.traits.proportional_attention and attention not in ("sdpa", "eager"):
        raise InputError(
            f"{type(pruner).__name__} weighs attention by the tokens that a slot stands for, which {attention!r} "
            "cannot: load the model with attention sdpa or eager"
        )
    layer_types = getattr(config, "layer_types", None) or ()
    if "sliding_attention" in layer_types or (not layer_types and getattr(config, "sliding_window", None)):
        raise InputError(f"{config.model_type}: sliding-window attention layers cannot be pruned")


def check_forward(cache: Any, mask: Any) -> None:
    """Checks that the KV cache and the attention mask may differ between layers.

    Raises:
        InputError: a static KV cache, or a mask that is not [batch, length].
    """
    if getattr(cache, "is_compileable", False):
        raise InputError("a static KV cache cannot hold layers of different lengths: use the default dynamic cache")
    if mask is not None and (not isinstance(mask, Tensor) or mask.ndim != 2):
        raise InputError("pruning rebuilds the attention mask: pass attention_mask as [batch, length]")


def check_call(given: Any, pruner: Pruner) -> None:
    """Checks that a model is not called with labels, which have the full prompt's length.

    Raises:
        InputError: labels, with a method that drops tokens.
    """
    if given.get("labels") is not None and pruner.cuts:
        raise InputError("labels have the full prompt's length, a pruned prompt has not: call without labels")


def check_prompt(call: ModelCall, pruner: Pruner, last_ids: Tensor | None) -> None:
    """Checks that a forward pass brings a whole prompt, and wants no outputs that a pruned one does not have.

    Args:
        call: the model's call.
        pruner: the method, resolved.
        last_ids: the previous prompt's input ids, where no KV cache is used.

    Raises:
        InputError: decoding without a KV cache, or logits of positions that are pruned away.
    """
    ids, wanted = call.input_ids, call.logits_to_keep
    if ids is not None and last_ids is not None and torch.equal(ids[:, :-1], last_ids):
        raise InputError("without a KV cache every token would prune the prompt anew: generate with use_cache=True")
    if isinstance(wanted, Tensor) and pruner.cuts:
        raise InputError("logits_to_keep names positions of the full prompt, pruned away by then: give a number")
    if pruner.traits.needs_attention and isinstance(wanted, int) and wanted > 1:
        raise InputError(
            f"{type(pruner).__name__} scores by the prompt's last position, but logits_to_keep={wanted} says "
            "that the prompt has more behind it: leave it out, and generate without prompt lookup or an assistant"
        )


def check_continuation(call: ModelCall, step: ForwardPass, width: int, last_position: Tensor | int | None) -> None:
    """Checks that later tokens bring no images, and that something tells their positions.

    Args:
        call: the model's call.
        step: the forward pass.
        width: number of tokens in this pass.
        last_position: the prompt's highest position id where it was cut before the LLM, whose KV cache then no longer
            tells how long the prompt was; else None.

    Raises:
        InputError: images, or positions that cannot be known.
    """
    if call.brings_images:
        raise InputError("images in a later chunk: pruning needs the whole prompt in one forward pass")
    if last_position is None:
        return
    if not step.span or not call.tells_positions:
        raise InputError("with layer=0 the cache no longer tells positions: pass position_ids when decoding by hand")
    if width > 1 and (step.span[0] <= last_position).any():
        raise InputError("with layer=0 the cache no longer tells what was seen: continue with layer=1 or higher")
