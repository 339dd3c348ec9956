"""Prompts that begin with the same frame are read once up to where they part, in the layers after a cut.

What they share is what a method keeps of the images, and the text up to the question itself.

Shape suffixes: B batch rows, K kept positions, S distinct prefixes, D channels, G key-value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class PromptPrefix:
    """How a prompt begins.

    Args:
        name: name of the prompt up to its last visual token: prompts with the same name have the same ids and images
            there.
        length: number of positions that all prompts with this name have in common, at least up to the last visual
            token.
    """

    name: str
    length: int


@dataclass(frozen=True)
class SharedPrefixes:
    """Which batch rows have the same prefix after a cut.

    Args:
        row_S: one batch row of each distinct prefix.
        of_B: index of the distinct prefix that each batch row has.
        width: positions of a prefix, padding included: what follows it starts there in every row.
        groups: batch rows of similar length, with the number of last positions that hold all that follows in them.
    """

    row_S: Tensor
    of_B: Tensor
    width: int
    groups: list[tuple[Tensor, int]]


def split_shared_prefix(
    kept: Sequence[Tensor], starts: Sequence[int], prefixes: Sequence[PromptPrefix]
) -> tuple[list[list[Tensor]], SharedPrefixes | None]:
    """Splits each row's kept positions into prefix and rest, where rows share prefixes.

    Args:
        kept: each row's kept positions in the batch, ascending.
        starts: batch position at which each row's prompt begins, after its padding.
        prefixes: how each row's prompt begins.

    Returns:
        The prefixes and the rests, and which rows share a prefix; the rows as they are and None where none do.
    """
    stops = [start + prefix.length for start, prefix in zip(starts, prefixes, strict=True)]
    lengths = [int(torch.searchsorted(row_K, stop)) for row_K, stop in zip(kept, stops, strict=True)]
    first = [row_K[:length] for row_K, length in zip(kept, lengths, strict=True)]
    rows: dict[tuple[str, bytes], int] = {}
    lead_B = [
        rows.setdefault((prefix.name, (row_K - start).numpy().tobytes()), row)
        for row, (row_K, start, prefix) in enumerate(zip(first, starts, prefixes, strict=True))
    ]
    rest = [row_K[length:] for row_K, length in zip(kept, lengths, strict=True)]
    if len(rows) == len(kept) or not all(map(len, rest)):
        return [list(kept)], None
    row_S, of_B = torch.tensor(lead_B).unique(return_inverse=True)
    groups = _rows_of_similar_length([len(row_K) for row_K in rest])
    return [first, rest], SharedPrefixes(row_S, of_B, max(lengths), groups)


def _rows_of_similar_length(lengths: Sequence[int], most: float = 2.0) -> list[tuple[Tensor, int]]:
    """Groups rows so that no length in a group is more than `most` times another; each with its longest length."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or lengths[row] > most * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return [(torch.tensor(sorted(rows)), lengths[rows[-1]]) for rows in groups]


class SharedPrefixForward:
    """Runs a batch through the layers after a cut: each distinct prefix once, then what follows it in every row.

    The KV cache is filled as if each row had been read by itself; a layer's output is only what follows the prefixes.

    Args:
        shared: which rows share a prefix.
        real_BK: False at the padding.
        config: the decoder's configuration.
    """

    def __init__(self, shared: SharedPrefixes, real_BK: Tensor, config: Any) -> None:
        self.shared, self.real_BK, self.config = shared, real_BK, config
        self.prefix_SKD: Tensor | None = None
        self.masks: dict[int, Any] = {}

    def __call__(
        self,
        layer: Callable[..., Tensor],
        index: int,
        hidden_BKD: Tensor,
        *,
        position_embeddings: tuple[Tensor, Tensor],
        past_key_values: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Runs one layer.

        Args:
            layer: the layer's forward.
            index: the layer's index.
            hidden_BKD: states of all positions for the first layer, what the layer before returned for the next ones.
            position_embeddings: cosines and sines of all kept positions.
            past_key_values: the KV cache to fill.
            kwargs: the layer's other arguments.

        Returns:
            States of what follows the prefixes.
        """
        width, row_S = self.shared.width, self.shared.row_S
        if self.prefix_SKD is None:
            self.prefix_SKD = hidden_BKD[row_S.to(hidden_BKD.device), :width]
            hidden_BKD = hidden_BKD[:, width:]

        def run(states: Tensor, rows: Tensor, last: int, cache: Any) -> Tensor:
            """Runs the layer on the `last` positions of some rows, after those in the cache; 0 is the prefix."""
            kwargs["attention_mask"] = self._mask(states, rows, last, cache, index)
            place = slice(width) if last == 0 else slice(-last, None)
            rope = tuple(part[rows.to(part.device), place] for part in position_embeddings)
            return layer(states, position_embeddings=rope, past_key_values=cache, **kwargs)

        from transformers import DynamicCache

        cache = DynamicCache()
        self.prefix_SKD = run(self.prefix_SKD, row_S, 0, cache)
        hidden_BKD = hidden_BKD.to(self.prefix_SKD.device)  # layers may lie on several
        of_B = self.shared.of_B.to(self.prefix_SKD.device)
        room = (0, 0, 0, self.real_BK.shape[1] - width)
        keys, values = (pad(part_SGKE[of_B], room) for part_SGKE in _cached(cache, index))
        output_BKD = torch.zeros_like(hidden_BKD)
        for rows, last in self.shared.groups:
            cache, at = DynamicCache(), rows.to(keys.device)
            cache.update(keys[at, :, :width], values[at, :, :width], index)
            output_BKD[at, -last:] = run(hidden_BKD[at, -last:], rows, last, cache)
            for whole, part in zip((keys, values), _cached(cache, index), strict=True):
                whole[at, :, -last:] = part[:, :, width:]
        past_key_values.update(keys, values, index)
        return output_BKD

    def _mask(self, states: Tensor, rows: Tensor, last: int, cache: Any, index: int) -> Any:
        """Returns the attention mask of a group, made at the first layer; groups differ in `last`."""
        if last not in self.masks:
            from transformers.masking_utils import create_causal_mask  # slow to import: it takes torch._dynamo along

            real_GK = self.real_BK[rows.to(self.real_BK.device)]
            width = self.shared.width
            real_GK = torch.cat([real_GK[:, :width], real_GK[:, real_GK.shape[1] - last :]], dim=1)
            padding = None if real_GK.all() else real_GK
            self.masks[last] = create_causal_mask(self.config, states, padding, cache, layer_idx=index)
        mask = self.masks[last]
        return mask.to(states.device) if isinstance(mask, Tensor) else mask


def _cached(cache: Any, index: int) -> tuple[Tensor, Tensor]:
    """Returns a layer's keys and values, [rows, G, positions, E]."""
    return cache.layers[index].keys, cache.layers[index].values
