"""Starts the training of a deep model from a shallower one that is already trained."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from prune2drive.errors import InputError

LAYER = "model.language_model.layers."


@torch.no_grad()
def grow(model: LlavaOnevisionForConditionalGeneration, start: Path) -> None:
    """Gives a model the weights of a trained model that has fewer decoder layers, and computes the same at first.

    Each of the layers in excess follows one of the trained model's first layers, and adds nothing to the residual
    stream until it has learned to ("block expansion": arXiv 2401.02415): its other weights stay as they are.

    Args:
        model: the model to start; it is changed in place.
        start: folder of the trained model.

    Raises:
        InputError: the folder holds no such model, or its sizes do not fit.
    """
    try:
        trained = LlavaOnevisionForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    except (OSError, ValueError):
        raise InputError(f"task.start={start}: holds no trained MiniDrive model") from None
    old, new = (each.config.get_text_config().num_hidden_layers for each in (trained, model))
    if not old <= new <= 2 * old:
        raise InputError(f"task.model.layers={new}: {start} has {old}; use {old} to {2 * old}")
    places = [layer + min(layer, new - old) for layer in range(old)]
    weights = {_moved(name, places): weight for name, weight in trained.state_dict().items()}
    mine = model.state_dict()
    wrong = [name for name, weight in weights.items() if name not in mine or mine[name].shape != weight.shape]
    if wrong:
        raise InputError(f"task.start={start}: {wrong[0]} has another shape; use the sizes of that model in task.model")
    model.load_state_dict(weights, strict=False)
    for at, layer in enumerate(model.get_decoder().layers):
        if at not in places:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()


def _moved(name: str, places: list[int]) -> str:
    """Returns the name of a weight in the deeper model."""
    if not name.startswith(LAYER):
        return name
    layer, rest = name.removeprefix(LAYER).split(".", 1)
    return f"{LAYER}{places[int(layer)]}.{rest}"
