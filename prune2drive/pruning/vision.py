"""What the vision tower attends to, for methods that rank visual tokens before the LLM.

Shape suffixes: I encoded images (tiles), T positions of the tower (class token included), H heads, V visual tokens of
one prompt, N tokens of a pool, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.families import family_of, known_families
from prune2drive.pruning.pool import Pool
from prune2drive.token_map import TokenMap


def check_tower(config: Any, method: str) -> None:
    """Checks that the attention of a family's vision tower can be read.

    Raises:
        InputError: the family's tower is not known.
    """
    readable = [name for name, family in known_families().items() if family.tower_layers]
    if config.model_type not in readable:
        raise InputError(
            f"{method} reads the vision tower's attention, which is not known for {config.model_type} models, only for "
            f"{', '.join(readable)}; of the other methods all but those that say so run on it"
        )


@dataclass(frozen=True)
class VisionLayerOutput:
    """One call of the vision tower's feature layer.

    Args:
        attention: the layer's attention module.
        query_ITD: its queries, all heads joined.
        keys_ITD: its keys, all heads joined.
        after_ITD: the layer's output.
    """

    attention: Any
    query_ITD: Tensor
    keys_ITD: Tensor
    after_ITD: Tensor

    @staticmethod
    def attention_of(layer: nn.Module) -> tuple[Any, nn.Module, nn.Module]:
        """Returns a layer's attention, and the modules whose outputs are its queries and keys."""
        attention: Any = getattr(layer, "self_attn", None) or layer.attention
        query, keys = (getattr(attention, f"{name}_norm", getattr(attention, f"{name}_proj")) for name in ("q", "k"))
        return attention, query, keys

    @torch.no_grad()
    def received_attention(self) -> Tensor:
        """Computes the attention that each position receives from the class token or, without one, from all patches.

        Computed image by image, in float32.
        """
        rows_ITD = self.query_ITD[:, :1] if self.has_class_token else self.query_ITD
        query, keys = (
            states.unflatten(-1, (self.attention.num_heads, -1)).transpose(1, 2).float()
            for states in (rows_ITD, self.keys_ITD)
        )
        received = [
            (one_query @ one_keys.transpose(1, 2) * self.attention.scale).softmax(dim=-1).mean(dim=(0, 1))
            for one_query, one_keys in zip(query, keys, strict=True)
        ]
        return torch.stack(received)

    def mean_keys(self) -> Tensor:
        """Returns each position's key, averaged over heads; float32 [I, T, D / H]."""
        keys_ITHE: Tensor = self.keys_ITD.unflatten(-1, (self.attention.num_heads, -1))
        return keys_ITHE.mean(dim=2, dtype=torch.float32)

    @property
    def has_class_token(self) -> bool:
        """Whether there is a class token: patches alone make a square."""
        return math.isqrt(self.after_ITD.shape[1]) ** 2 != self.after_ITD.shape[1]


@dataclass(frozen=True)
class VisionTokens:
    """What the vision tower makes of every visual token, prompt by prompt in prompt order.

    Where patches share a token, their mean.

    Args:
        received: attention each token gets, [V] a prompt.
        features: the tower's output before the projector, [V, D] a prompt.
        keys: keys of the tower's feature layer, averaged over its heads, [V, D] a prompt.
    """

    received: list[Tensor]
    features: list[Tensor]
    keys: list[Tensor]

    @classmethod
    def of(cls, layer: VisionLayerOutput, maps: Sequence[TokenMap], config: Any) -> VisionTokens:
        """Splits the images between prompts; beams repeat each prompt in place, its images are encoded once.

        Raises:
            InputError: visual tokens that do not stand for the tower's patches one to one, or square to one.
        """
        side, first = family_of(config).patches_a_side(config), int(layer.has_class_token)
        parts_ITD = (layer.received_attention()[..., None], layer.after_ITD.float(), layer.mean_keys())
        received_IT1, *others_ITD = (_pooled(part_ITD[:, first:], side) for part_ITD in parts_ITD)
        images, each = received_IT1.shape[:2]
        counts = [sum(token_map.counts.values()) for token_map in maps]
        repeats = max(1, sum(counts) // (each * images))
        if any(count % each for count in counts) or sum(counts) != repeats * each * images:
            raise InputError(
                f"{images} images of {each} tokens do not fit the prompts' {counts} visual tokens: what reads the "
                "vision tower's attention needs images or tiles that are shown whole"
            )
        starts, start = [], 0
        for row, count in enumerate(counts):
            starts.append(start)
            if (row + 1) % repeats == 0:
                start += count
        spans = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
        flat = (received_IT1.flatten(), *(part_ITD.flatten(0, 1) for part_ITD in others_ITD))
        return cls(*([part[span] for span in spans] for part in flat))

    def of_pools(self, pools: Sequence[Pool]) -> tuple[Tensor, Tensor]:
        """Returns the attention received [C, N] and the features [C, N, D] of each pool's tokens."""
        return self.at_pools(self.received, pools), self.at_pools(self.features, pools)

    @staticmethod
    def at_pools(values: Sequence[Tensor], pools: Sequence[Pool]) -> Tensor:
        """Returns what values of the visual tokens, [V, ...] a prompt, are at each pool's tokens; [C, N, ...]."""
        starts = [0, *accumulate(map(len, values))]
        places = []
        for pool in pools:
            visual_V = (pool.token_map.view_P >= 0).nonzero().flatten()
            mine = torch.cat([pool.token_map.positions(camera) for camera in pool.cameras])[pool.of_N]
            places.append(torch.searchsorted(visual_V, mine) + starts[pool.row])
        return torch.cat(list(values))[torch.stack(places).to(values[0].device)]


def _pooled(states_ITD: Tensor, side: int) -> Tensor:
    """Averages over squares of side x side patches, in raster order."""
    rows = math.isqrt(states_ITD.shape[1])
    grid: Tensor = states_ITD.unflatten(1, (rows // side, side, rows // side, side))
    return grid.mean(dim=(2, 4)).flatten(1, 2)
