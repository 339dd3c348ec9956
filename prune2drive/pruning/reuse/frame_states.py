"""The states that a frame's prompts have in common before the first cut: recorded once, put back into every prompt.

Shape suffixes: B batch rows, P prompt positions (padded), T last positions, which hold all that prompts do not share, D
channels, G key-value heads, E their width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.families import decoder_of
from prune2drive.families.kv_cache import cache_of
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.surgery.patch import Args, Kwargs, override_method
from prune2drive.pruning.vision import VisionTokens
from prune2drive.token_map import TokenMap

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Frames:
    """The frames that a batch of prompts asks about.

    Args:
        names: the frames' names.
        ids: token ids of the beginning that the prompts of each frame share, up to its last image at least.
        token_maps: where the visual tokens of each beginning lie.
        frame_of: index of each prompt's frame.
        texts: token ids of each prompt behind its frame's beginning, one at least.
        read: lets the model read the beginnings, with or without their images; takes `with_images`, and options of
            `generate`.
    """

    names: Sequence[str]
    ids: Sequence[Tensor]
    token_maps: Sequence[TokenMap]
    frame_of: Sequence[int]
    texts: Sequence[Tensor]
    read: Callable[..., None]

    @property
    def lengths(self) -> list[int]:
        """Number of positions of each prompt, without padding."""
        return [len(self.ids[of]) + len(ids) for of, ids in zip(self.frame_of, self.texts, strict=True)]


@dataclass(frozen=True)
class StatesWanted:
    """Which states of a prompt a method's first cut needs.

    Args:
        cut: the first layer that a method touches; the KV cache of all layers before it is wanted.
        inputs: layers whose inputs are wanted.
        vision: what is wanted of the vision tower, by the names of `VisionTokens`.
    """

    cut: int
    inputs: tuple[int, ...]
    vision: tuple[str, ...]

    @classmethod
    def of(cls, pruner: Pruner) -> StatesWanted:
        """Returns what a method needs: embeddings, what enters its cut and, to read attention, the layer before."""
        cut = pruner.cuts[0] if pruner.cuts else 0
        inputs = sorted({0, cut, cut - pruner.traits.needs_attention})
        vision = tuple(part.name for part in fields(VisionTokens)) if pruner.traits.needs_vision else ()
        return cls(cut, tuple(inputs), vision)


class StateRecorder:
    """Records the states of a batch of prompts while the model reads them.

    Args:
        decoder: the model's decoder.
        wanted: which states to record.
    """

    def __init__(self, decoder: Any, wanted: StatesWanted) -> None:
        self.decoder, self.wanted = decoder, wanted
        self.recorded: dict[str, Tensor] = {}
        self.features: list[Tensor] = []

    def install(self, undo: ExitStack) -> None:
        """Registers the hooks, which must come before those that prune."""
        undo.callback(self.decoder.register_forward_pre_hook(self._on_decoder, with_kwargs=True).remove)
        for index in self.wanted.inputs:
            layer = self.decoder.layers[index]
            undo.callback(layer.register_forward_pre_hook(partial(self._on_input, index), with_kwargs=True).remove)

    def _on_decoder(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if names := decoder_of(self.decoder.config).feature_inputs:
            self.recorded["visual"], self.features = kwargs[names[0]][..., None], list(kwargs[names[1]])

    def _on_input(self, index: int, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self.recorded[f"hidden.{index}"] = args[0]
        if index == self.wanted.cut:
            for before, layer in enumerate(cache_of(kwargs).layers[:index]):
                self.recorded |= {f"keys.{before}": layer.keys, f"values.{before}": layer.values}

    def of_prompts(self, lengths: Sequence[int]) -> list[dict[str, Tensor]]:
        """Returns the states of each prompt without padding; positions are on the last axis but one."""
        prompts = [
            {name: states[row, ..., states.shape[-2] - length :, :] for name, states in self.recorded.items()}
            for row, length in enumerate(lengths)
        ]
        for layer, features_VD in enumerate(self.features):
            counts = [int(states["visual"].sum()) for states in prompts]
            for states, part_VD in zip(prompts, features_VD.split(counts), strict=True):
                states[f"features.{layer}"] = part_VD
        return prompts


class StateReplay:
    """Puts recorded states in place of the beginnings of prompts, so that only what follows them is computed.

    The batch is read at full length, without its images. Layers before the cut run on its last T positions alone.

    Args:
        decoder: the model's decoder.
        wanted: which states were recorded.
        beginnings: the recorded states of each prompt's beginning.
        lengths: number of positions of each prompt, without padding.
    """

    def __init__(
        self, decoder: Any, wanted: StatesWanted, beginnings: Sequence[Tensors], lengths: Sequence[int]
    ) -> None:
        self.decoder, self.wanted, self.beginnings, self.lengths = decoder, wanted, beginnings, lengths
        shared = [len(states["hidden.0"]) for states in beginnings]
        self.behind = max(length - begun for length, begun in zip(lengths, shared, strict=True))
        self.is_prefill = False
        self.padding_BP: Tensor | None = None
        self.mask: Any = None

    def install(self, undo: ExitStack) -> None:
        """Registers the hooks, which must come before those that prune."""
        undo.callback(self.decoder.register_forward_pre_hook(self._on_decoder, with_kwargs=True).remove)
        for index in self.wanted.inputs:
            layer = self.decoder.layers[index]
            undo.callback(layer.register_forward_pre_hook(partial(self._on_input, index), with_kwargs=True).remove)
        for index, layer in enumerate(self.decoder.layers[: self.wanted.cut]):
            override_method(undo, layer, "forward", partial(self._on_layer, index))

    def _on_decoder(self, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        cache = cache_of(kwargs)
        self.is_prefill = cache is not None and cache.get_seq_length() == 0
        self.padding_BP, self.mask = kwargs.get("attention_mask"), None
        names = decoder_of(self.decoder.config).feature_inputs
        if not (names and self.is_prefill):
            return None
        embeds_BPD = kwargs["inputs_embeds"]
        visual_BP1 = embeds_BPD.new_zeros(*embeds_BPD.shape[:2], 1, dtype=torch.bool)
        shown = [self.beginnings[row * len(self.beginnings) // len(embeds_BPD)] for row in range(len(embeds_BPD))]
        layers = [name for name in self.beginnings[0] if name.startswith("features.")]
        features = [torch.cat([states[name].to(embeds_BPD) for states in shown]) for name in layers]
        return args, kwargs | {names[0]: self._filled("visual", visual_BP1, 0)[..., 0], names[1]: features}

    def _on_input(self, index: int, module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs] | None:
        if not self.is_prefill:
            return None
        behind = 0 if index == 0 else self.behind  # embeddings of the last positions are there, but not of images
        return (self._filled(f"hidden.{index}", args[0].clone(), behind), *args[1:]), kwargs

    def _on_layer(self, index: int, original: Callable[..., Any], hidden_BPD: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self.is_prefill:
            return original(hidden_BPD, *args, **kwargs)
        cache, (rows, length) = cache_of(kwargs), hidden_BPD.shape[:2]
        for_layer = []
        for part in ("keys", "values"):
            like = self.beginnings[0][f"{part}.{index}"]
            empty = like.new_zeros(rows, like.shape[0], length - self.behind, like.shape[-1], device=hidden_BPD.device)
            for_layer.append(self._filled(f"{part}.{index}", empty, 0, length))
        cache.update(*for_layer, index)
        if not self.behind:
            return hidden_BPD.clone()  # to which vision features may be added in place
        last_BTD = hidden_BPD[:, -self.behind :]
        if self.mask is None:
            from transformers.masking_utils import create_causal_mask  # slow to import: it takes torch._dynamo along

            self.mask = create_causal_mask(self.decoder.config, last_BTD, self.padding_BP, cache, layer_idx=index)
        mask, ids = self.mask, kwargs.get("position_ids")
        kwargs["attention_mask"] = mask.to(last_BTD.device) if isinstance(mask, Tensor) else mask
        kwargs["position_ids"] = None if ids is None else ids[..., -self.behind :]
        kwargs["position_embeddings"] = tuple(part[..., -self.behind :, :] for part in kwargs["position_embeddings"])
        return torch.cat([hidden_BPD[:, : -self.behind], original(last_BTD, *args, **kwargs)], dim=1)

    def _filled(self, name: str, states: Tensor, behind: int, length: int | None = None) -> Tensor:
        """Fills a batch with recorded states, each prompt's as often as beams repeat it.

        Args:
            name: which states.
            states: the batch, with positions on the last axis but one, the first of `length` positions.
            behind: number of last positions to leave as they are.
            length: padded length of the prompts; by default that of `states`.
        """
        length = states.shape[-2] if length is None else length
        limit = min(states.shape[-2], length - behind)
        for row, state in enumerate(states):
            prompt = row * len(self.beginnings) // len(states)
            recorded = self.beginnings[prompt][name]
            start = length - self.lengths[prompt]
            stop = min(start + recorded.shape[-2], limit)
            if stop > start:
                state[..., start:stop, :] = recorded[..., : stop - start, :]
        return states
