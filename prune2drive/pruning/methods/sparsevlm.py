"""SparseVLM (ICML 2025, arXiv 2410.04417): keeps what the words that the image calls up attend to.

Shape suffixes: P prompt positions, N tokens of a pool, T text positions, R raters, H query heads, M merged tokens,
D channels, E head width, K slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.base import Traits
from prune2drive.pruning.clustering import density_peaks
from prune2drive.pruning.context import Context, Selection, moved
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.selection import highest
from prune2drive.pruning.stages import Stages

SIZES = {
    "1.5": ((66, 30, 17), (238, 48, 26), (303, 110, 36), (300, 200, 110)),
    "2": ((66, 34, 20), (246, 54, 28), (238, 108, 60), (300, 200, 118)),
}
"""Tokens after each cut, of OF tokens, in the authors' four settings."""
OF = 576
LEAST_BIAS = 0.01
"""The least rotary bias, as a share of that at distance zero: attention is divided by it, and it may be negative."""


@dataclass
class SparseVLM(Stages):
    """Keeps, in three cuts, what raters attend to in the layer before the cut.

    Raters are the words that the image calls up: tokens of the text after the images whose share of a softmax over that
    text, of unscaled dot products of input embeddings, averaged over the pool's visual tokens, is above the mean. Where
    all shares are equal, all are raters.

    Version 1.5 recycles: the best 30 % of the dropped tokens are clustered (DPC-KNN), and the clusters' means follow
    the pool's kept tokens. Slots move up for them, so that a kept token has its own position ids only with
    `positions=renumber`, the authors' convention. Version 2 (SparseVLM+) does not recycle; it divides attention by what
    the rotary embedding alone would give, and rates with the heads that attend to the images most.

    Differs from the released code: its sizes are tables for four budgets of 576 tokens (the paper's adaptive rank is
    not released); here they are scaled to N tokens and interpolated by the last size, which is exactly k. A size counts
    kept and recycled tokens, at most half of them recycled. The noise of densities has a seed, and the bias is at least
    1 % of its largest value.

    Args:
        version: `1.5` or `2`.
        heads: attention heads that rate in version 2.
        seed: seed of the noise that separates equal densities.
    """

    version: str = "1.5"
    heads: int = 14
    seed: int = 0

    default_depths: ClassVar[tuple[float, ...]] = (3 / 32, 7 / 32, 16 / 32)

    def __post_init__(self) -> None:
        self.version = str(self.version)
        super().__post_init__()
        check_choice("pruner.version", self.version, SIZES)
        check_whole("pruner.heads", self.heads)
        if self.layers is not None and len(self.layers) != len(self.default_depths):
            raise InputError(f"SparseVLM: layers={list(self.layers)}: it cuts three times, name three layers")

    @property
    def traits(self) -> Traits:
        recycles = self.version == "1.5"
        positions = "renumber" if recycles else "keep"
        return Traits(nested=False, positions=positions, needs_attention=True, merges_tokens=recycles)

    def sizes(self, k: int, count: int) -> list[int]:
        *firsts, last = zip((0, 0, 0), *SIZES[self.version], (OF, OF, OF), strict=True)
        return [round(float(np.interp(k * OF / count, last, first)) * count / OF) for first in firsts] + [k]

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        scores_CN = self.scores(ctx)
        if not self.traits.merges_tokens or k == tokens_CND.shape[1]:
            return highest(scores_CN, k)
        noise = [torch.rand(tokens_CND.shape[1], generator=pool.generator(self.seed)) for pool in ctx.pools]
        ranked_CN, noise_CN = highest(scores_CN, tokens_CND.shape[1]), torch.stack(noise).to(tokens_CND.device)
        recycled = [recycle(*pool, k) for pool in zip(tokens_CND, ranked_CN, noise_CN, strict=True)]
        picks, rows = zip(*recycled, strict=True)
        return Selection(torch.stack(picks), torch.stack(rows))

    def scores(self, ctx: Context) -> Tensor:
        """Scores each pool's tokens by the attention that its raters pay them; [C, N]."""
        at = moved([pool.at_N for pool in ctx.pools], ctx.at.hidden_BPD.device)
        return torch.stack([self._score(*pool, ctx) for pool in zip(ctx.pools, raters(ctx), at, strict=True)])

    def _score(self, pool: Pool, at_R: Tensor, at_N: Tensor, ctx: Context) -> Tensor:
        assert ctx.before is not None
        attention_HRP = ctx.before.rows(pool.row, at_R)
        if self.version == "1.5":
            return attention_HRP.mean(dim=(0, 1))[at_N]
        attention_HRN = attention_HRP.index_select(2, at_N) / rotary_bias(ctx.before, pool.row, at_R, at_N)
        most_H = highest(attention_HRN.sum(dim=(1, 2))[None], self.heads)[0]
        return attention_HRN[most_H].mean(dim=(0, 1))

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts one rater's row, as the question's length is not known, and the distances of recycled tokens."""
        recycled = _recycled(count - k) if self.traits.merges_tokens and k < count else 0
        return 2 * count * channels + 2 * recycled * recycled * channels


def raters(ctx: Context) -> Sequence[Tensor]:
    """Returns the positions of the text tokens that each pool's images call up; at least one, [R] a pool.

    They are the same at every cut and, as no text is dropped, at the same distance from the prompt's end.
    """
    if new := [pool for pool in ctx.pools if (pool.row, pool.cameras) not in ctx.notes]:
        ctx.notes.update(zip(((pool.row, pool.cameras) for pool in new), _find_raters(new, ctx), strict=True))
    length = ctx.question_BP.shape[1]
    at = [length - ctx.notes[pool.row, pool.cameras] for pool in ctx.pools]
    return moved(at, ctx.question_BP.device)


def _find_raters(pools: Sequence[Pool], ctx: Context) -> list[Tensor]:
    """Returns each pool's raters by their distance from the prompt's end."""
    lengths = [ctx.text_lengths[pool.row] for pool in pools]
    if 0 in lengths:
        raise InputError("SparseVLM: the prompt ends with an image, but the text after it rates: put the question last")
    length, above = ctx.prompt_BPD.shape[1], []
    at = moved([pool.whole(length) for pool in pools], ctx.prompt_BPD.device)
    for pool, at_N, texts in zip(pools, at, lengths, strict=True):
        visual_ND = ctx.prompt_BPD[pool.row].index_select(0, at_N).float()
        text_TD = ctx.embeddings_BPD[pool.row, -texts:].float()
        share_T = (visual_ND @ text_TD.T).softmax(dim=1).mean(dim=0)
        above.append(share_T > share_T.mean())
    found = torch.cat(above).cpu().split(lengths)
    return [len(above_T) - (above_T if above_T.any() else ~above_T).nonzero().flatten() for above_T in found]


def rotary_bias(view: LayerView, row: int, at_R: Tensor, at_N: Tensor) -> Tensor:
    """Returns the scaled products of rotated vectors of ones, which depend on positions alone; [R, N]."""
    cos_PE, sin_PE = (part[row if len(part) > 1 else 0].float() for part in view.rotary)
    width = cos_PE.shape[1]
    turned_E = torch.ones(width, device=cos_PE.device)
    turned_E[: width // 2] = -1
    ones_PE = cos_PE + turned_E * sin_PE
    scale: float = width**0.5
    return (ones_PE[at_R] @ ones_PE[at_N].T / scale).clamp(min=LEAST_BIAS * scale)


def recycle(tokens_ND: Tensor, ranked_N: Tensor, noise_N: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Keeps the best tokens, and the means of clusters of the best dropped ones.

    Args:
        tokens_ND: states of a pool's tokens.
        ranked_N: indices of the tokens, best first.
        noise_N: separates equal densities; see `density_peaks`.
        k: number of kept and merged tokens, below N.

    Returns:
        Slots [K], ascending: those of the kept tokens and the last of the dropped ones. States of the slots [K, D]: the
        kept tokens in order, then the merged ones.
    """
    count, merged = len(ranked_N), 0
    while (wanted := min(_clusters(count - k + merged), k // 2)) > merged:
        merged = wanted
    kept_K = ranked_N[: k - merged].sort().values
    dropped = ranked_N[k - merged :]
    slots_K = torch.cat([kept_K, dropped.sort().values[len(dropped) - merged :]]).sort().values
    if not merged:
        return slots_K, tokens_ND[slots_K]
    recycled_MD = tokens_ND[dropped[: _recycled(len(dropped))]]
    return slots_K, torch.cat([tokens_ND[kept_K], density_peaks(recycled_MD, merged, noise_N[: len(recycled_MD)])])


def _recycled(dropped: int) -> int:
    """Returns how many of the dropped tokens are merged: the best 30 %."""
    return int(0.3 * dropped) + 1


def _clusters(dropped: int) -> int:
    """Returns into how many tokens the best of the dropped ones are merged: a tenth of their number."""
    return _recycled(dropped) // 10 + 1
