"""Floating-point operations and cache size of a VLM, from its configuration alone.

One multiply-add counts as two FLOPs. Matrix products and convolutions are counted, as PyTorch's
`FlopCounterMode` does on the eager path; norms, rotations, activations and softmax are not. Attention
scores are the full tokens x tokens square, as eager attention computes it, unless `causal` says that
the kernel skips the upper half; a sliding window does still less.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from prune2drive.errors import InputError
from prune2drive.families import decoder_of, known_decoders


def layer_flops(text_config: PreTrainedConfig, tokens: int, causal: bool = False) -> int:
    """Returns the FLOPs of one decoder layer over a prompt of `tokens` positions.

    Args:
        tokens: positions in the layer.
        causal: whether to count half of the attention square.

    Raises:
        InputError: the formula does not describe the decoder, such as a mixture of experts.
    """
    heads, kv_heads, head_dim = _attention_shape(text_config)
    projections = text_config.hidden_size * head_dim * (2 * heads + 2 * kv_heads)
    scores = (1 if causal else 2) * tokens * head_dim * heads
    gated_mlp = 3 * text_config.hidden_size * text_config.intermediate_size
    return int(2 * tokens * (projections + scores + gated_mlp))


def decoder_flops(text_config: PreTrainedConfig, lengths: Sequence[int], causal: bool = False) -> int:
    """Returns the FLOPs of a prefill through all decoder layers, without `lm_head_flops`.

    Args:
        lengths: positions in each layer, as `layer_lengths` gives them.
        causal: whether to count half of the attention square.

    Raises:
        InputError: there is not one length per layer, or the formula does not describe the decoder.
    """
    if len(lengths) != text_config.num_hidden_layers:
        raise InputError(f"{len(lengths)} lengths for a decoder of {text_config.num_hidden_layers} layers")
    return sum(layers * layer_flops(text_config, tokens, causal) for tokens, layers in Counter(lengths).items())


def lm_head_flops(text_config: PreTrainedConfig, positions: int = 1) -> int:
    """Returns the FLOPs of the output projection, which `generate` computes for the prompt's last position only."""
    return int(2 * positions * text_config.hidden_size * text_config.vocab_size)


def layer_lengths(num_layers: int, full: int, stages: Sequence[tuple[int, int]] = ()) -> list[int]:
    """Returns the number of positions in every decoder layer.

    Args:
        full: positions before any pruning.
        stages: (layer, kept) by ascending layer: from the input of `layer` on, `kept` positions remain.

    Raises:
        InputError: a layer is outside the decoder or out of order, or keeps more positions than there were.
    """
    lengths = [full] * num_layers
    earliest = 0
    for layer, kept in stages:
        if not earliest <= layer < num_layers:
            raise InputError(f"pruning layer {layer} is not within {earliest}..{num_layers - 1}")
        if not 0 <= kept <= lengths[layer]:
            raise InputError(f"layer {layer} cannot keep {kept} of {lengths[layer]} positions")
        lengths[layer:] = [kept] * (num_layers - layer)
        earliest = layer + 1
    return lengths


def kv_cache_bytes(text_config: PreTrainedConfig, lengths: Sequence[int], dtype_bytes: int) -> int:
    """Returns the bytes of keys and values that a dynamic cache holds per sample after the prefill.

    Args:
        lengths: positions in each layer.
        dtype_bytes: bytes of one number, `model.dtype.itemsize`.

    Raises:
        InputError: the formula does not describe the decoder.
    """
    _, kv_heads, head_dim = _attention_shape(text_config)
    window = getattr(text_config, "sliding_window", None)
    kinds = getattr(text_config, "layer_types", None) or ["sliding_attention" if window else ""] * len(lengths)
    held = (
        min(tokens, window - 1) if window and kind == "sliding_attention" else tokens
        for tokens, kind in zip(lengths, kinds, strict=True)
    )
    return 2 * kv_heads * head_dim * dtype_bytes * sum(held)


def _attention_shape(text_config: PreTrainedConfig) -> tuple[int, int, int]:
    """Returns (query heads, key-value heads, size of a head)."""
    if not decoder_of(text_config).has_gated_mlp:
        gated = sorted(name for name, decoder in known_decoders().items() if decoder.has_gated_mlp)
        raise InputError(f"no FLOPs formula for decoder type {text_config.model_type!r}; known: {', '.join(gated)}")
    heads = text_config.num_attention_heads
    head_dim = getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
    return heads, text_config.num_key_value_heads or heads, head_dim


class VisionFlops:
    """Counts the vision tower and projector of any VLM, without its weights.

    The model's own code runs with eager attention on PyTorch's meta device, so the count is exact for
    every architecture whose shapes do not depend on pixel values. Each input shape is counted once.

    Args:
        config: the configuration of the whole model, `model.config`.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        with torch.device("meta"):  # from_config writes into the configuration: a live model's stays as it is
            model = AutoModelForImageTextToText.from_config(copy.deepcopy(config), attn_implementation="eager")
        self._dtype: torch.dtype = model.dtype
        self._encode: Callable[..., Any] = model.eval().get_image_features
        self._counts: dict[tuple[Any, ...], int] = {}

    def __call__(self, inputs: Mapping[str, Any]) -> int:
        """Returns the FLOPs of encoding the images of a batch.

        Args:
            inputs: the output of the processor: `pixel_values`, of which only the shape is read, and
                the family's sizes (`image_sizes`, `image_grid_thw`, ...). Text entries are ignored.

        Raises:
            InputError: the tower cannot run without pixel values; nothing is guessed.
        """
        accepted = inspect.signature(self._encode).parameters
        sizes = {name: value.cpu() for name, value in inputs.items() if name in accepted and name != "pixel_values"}
        shape = tuple(inputs["pixel_values"].shape)
        grids = sizes.pop("image_grid_thw", None)
        if grids is None:
            return self._once(shape, sizes)
        # Patches of all images in one row: an image attends to itself alone, so images add up.
        return sum(
            images * self._once((math.prod(grid), *shape[1:]), {**sizes, "image_grid_thw": torch.tensor([grid])})
            for grid, images in Counter(map(tuple, grids.tolist())).items()
        )

    def _once(self, shape: tuple[int, ...], sizes: Mapping[str, Tensor]) -> int:
        key = (shape, *((name, str(value.tolist())) for name, value in sizes.items()))
        if key not in self._counts:
            self._counts[key] = self._count(shape, sizes)
        return self._counts[key]

    def _count(self, shape: tuple[int, ...], sizes: Mapping[str, Tensor]) -> int:
        pixels = torch.empty(shape, dtype=self._dtype, device="meta")
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter, _MetaWins():  # type: ignore[no-untyped-call]  # torch
                self._encode(pixel_values=pixels, **sizes)
        except (NotImplementedError, RuntimeError) as error:
            raise InputError(f"vision FLOPs cannot be counted from these image shapes alone: {error}") from error
        return int(counter.get_total_flops())


class _MetaWins(TorchDispatchMode):
    """Lets tensors with values (image grids, window indices) meet meta tensors: the result is meta."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args_kwargs = (args, kwargs or {})
        on_meta = {leaf.is_meta for leaf in tree_leaves(args_kwargs) if isinstance(leaf, Tensor)}
        if len(on_meta) == 2:
            args_kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), args_kwargs)
        return func(*args_kwargs[0], **args_kwargs[1])
