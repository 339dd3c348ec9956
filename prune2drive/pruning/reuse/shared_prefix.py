"""Prompts that begin alike are read once up to where they part: in the layers behind a cut, questions share a frame.

What they share is what a method leaves of the images, and the text up to the question itself.

Shape suffixes: B batch rows, K kept positions, S distinct beginnings, D channels, G key-value heads, E their width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.masking_utils import create_causal_mask


@dataclass(frozen=True)
class Beginning:
    """How a prompt begins.

    Args:
        name: of its part up to the last visual token: prompts of one name have the same ids and images there.
        length: positions that prompts of this name have in common, at least those.
    """

    name: str
    length: int


@dataclass(frozen=True)
class Beginnings:
    """Which rows of a batch begin alike behind a cut.

    Args:
        row_S: a row of each distinct beginning.
        of_B: which of them each row has.
        width: positions of a beginning, padding included: what follows starts there in every row.
        groups: rows of similar length, and how many of the last positions hold all that follows in them.
    """

    row_S: Tensor
    of_B: Tensor
    width: int
    groups: list[tuple[Tensor, int]]


def part(
    kept: Sequence[Tensor], starts: Sequence[int], alike: Sequence[Beginning]
) -> tuple[list[list[Tensor]], Beginnings | None]:
    """Each row's kept positions, in two blocks where rows share what is left of their beginnings.

    Args:
        kept: each row's positions in the batch, ascending.
        starts: where each row's prompt begins, behind its padding.
        alike: how it begins.

    Returns:
        The blocks, and which rows share the first; one block and None where none do.
    """
    stops = [start + beginning.length for start, beginning in zip(starts, alike, strict=True)]
    lengths = [int(torch.searchsorted(row_K, stop)) for row_K, stop in zip(kept, stops, strict=True)]
    first = [row_K[:length] for row_K, length in zip(kept, lengths, strict=True)]
    rows: dict[tuple[str, bytes], int] = {}
    lead_B = [
        rows.setdefault((beginning.name, (row_K - start).numpy().tobytes()), row)
        for row, (row_K, start, beginning) in enumerate(zip(first, starts, alike, strict=True))
    ]
    rest = [row_K[length:] for row_K, length in zip(kept, lengths, strict=True)]
    if len(rows) == len(kept) or not all(map(len, rest)):
        return [list(kept)], None
    row_S, of_B = torch.tensor(lead_B).unique(return_inverse=True)
    return [first, rest], Beginnings(row_S, of_B, max(lengths), _groups([len(row_K) for row_K in rest]))


def _groups(lengths: Sequence[int], most: float = 2.0) -> list[tuple[Tensor, int]]:
    """Rows in groups within which no length is more than `most` times another, and each group's longest."""
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or lengths[row] > most * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(row)
    return [(torch.tensor(sorted(rows)), lengths[rows[-1]]) for rows in groups]


class Together:
    """Runs prompts through the layers behind a cut: each beginning once, then what follows it in every row.

    The cache is filled as if each row had been read by itself; what comes out of a layer is only what follows.

    Args:
        beginnings: of the rows.
        real_BK: False at the padding.
        config: the decoder's.
    """

    def __init__(self, beginnings: Beginnings, real_BK: Tensor, config: Any) -> None:
        self.beginnings, self.real_BK, self.config = beginnings, real_BK, config
        self.first_SKD: Tensor | None = None
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
        """One layer: the first is given the states of all positions, the next what the one before returned."""
        width, row_S = self.beginnings.width, self.beginnings.row_S
        if self.first_SKD is None:
            self.first_SKD = hidden_BKD[row_S.to(hidden_BKD.device), :width]
            hidden_BKD = hidden_BKD[:, width:]

        def run(states: Tensor, rows: Tensor, last: int, cache: Any) -> Tensor:
            """The layer on the `last` positions of some rows, behind what the cache holds of them."""
            kwargs["attention_mask"] = self._mask(states, rows, last, cache, index)
            place = slice(width) if last == 0 else slice(-last, None)
            turned = tuple(part[rows.to(part.device), place] for part in position_embeddings)
            return layer(states, position_embeddings=turned, past_key_values=cache, **kwargs)

        cache = DynamicCache()
        self.first_SKD = run(self.first_SKD, row_S, 0, cache)
        hidden_BKD = hidden_BKD.to(self.first_SKD.device)  # layers may lie on several
        of_B = self.beginnings.of_B.to(self.first_SKD.device)
        room = (0, 0, 0, self.real_BK.shape[1] - width)
        keys, values = (pad(part_SGKE[of_B], room) for part_SGKE in _held(cache, index))
        output_BKD = torch.zeros_like(hidden_BKD)
        for rows, last in self.beginnings.groups:
            cache, at = DynamicCache(), rows.to(keys.device)
            cache.update(keys[at, :, :width], values[at, :, :width], index)
            output_BKD[at, -last:] = run(hidden_BKD[at, -last:], rows, last, cache)
            for whole, part in zip((keys, values), _held(cache, index), strict=True):
                whole[at, :, -last:] = part[:, :, width:]
        past_key_values.update(keys, values, index)
        return output_BKD

    def _mask(self, states: Tensor, rows: Tensor, last: int, cache: Any, index: int) -> Any:
        """Made at the first layer; each group's `last` is its own."""
        if last not in self.masks:
            real_GK = self.real_BK[rows.to(self.real_BK.device)]
            width = self.beginnings.width
            real_GK = torch.cat([real_GK[:, :width], real_GK[:, real_GK.shape[1] - last :]], dim=1)
            padding = None if real_GK.all() else real_GK
            self.masks[last] = create_causal_mask(self.config, states, padding, cache, layer_idx=index)
        mask = self.masks[last]
        return mask.to(states.device) if isinstance(mask, Tensor) else mask


def _held(cache: Any, index: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a layer, [rows, G, positions, E]."""
    return cache.layers[index].keys, cache.layers[index].values
