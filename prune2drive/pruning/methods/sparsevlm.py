"""SparseVLM (ICML 2025, arXiv 2410.04417): what the words that the image calls up attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.base import Traits
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.selection import highest, pairwise_distance
from prune2drive.pruning.stages import Stages

SIZES = {
    "1.5": ((66, 30, 17), (238, 48, 26), (303, 110, 36), (300, 200, 110)),
    "2": ((66, 34, 20), (246, 54, 28), (238, 108, 60), (300, 200, 118)),
}
"""Tokens after each cut of the authors' four settings, of OF tokens."""
OF = 576
LEAST_BIAS = 0.01
"""Of the rotary bias at distance zero: it may be as small as zero or negative where it divides attention."""


@dataclass
class SparseVLM(Stages):
    """Keeps, in three cuts, what the raters attend to in the layer before: the words that the image calls up.

    A rater is a token of the text behind the images whose share of the softmax over that text, of unscaled
    dot products of the embeddings that entered the LLM, is above average, in the mean over the pool's visual tokens.
    Where all shares are equal, all are raters.

    Version 1.5 recycles: of the dropped tokens the best 30 % are clustered (density peaks of nearest
    neighbours), and each cluster's mean is put behind the kept tokens of the pool. Slots of the pool
    move up for it, so a kept token has its own position ids only with `positions=renumber`, the
    authors' convention. Version 2 (SparseVLM+) does not recycle; it divides attention by what the rotary
    embedding alone would give it, and rates with the heads that look at the images most.

    The released code's sizes are tables for four budgets of 576 tokens. Here they are scaled to N tokens and, for a
    budget between theirs, interpolated linearly by the last size, which is exactly k. A stage's size counts kept and
    recycled tokens together, of which these are half at most. The paper's adaptive rank is not in the released
    code. Noise of the density is drawn from the seed, and the bias is 1 % of its largest value at least.

    Args:
        version: `1.5` or `2`.
        heads: attention heads that rate in version 2.
        seed: of the noise that separates equal densities.
    """

    version: str = "1.5"
    heads: int = 14
    seed: int = 0

    default_depths: ClassVar[tuple[float, ...]] = (3 / 32, 7 / 32, 16 / 32)

    def __post_init__(self) -> None:
        self.version = str(self.version)
        super().__post_init__()
        if self.version not in SIZES:
            raise InputError(f"SparseVLM: version={self.version!r} is not one of {', '.join(SIZES)}")
        if self.layers is not None and len(self.layers) != len(self.default_depths):
            raise InputError(f"SparseVLM: layers={list(self.layers)}: it cuts three times, name three layers")
        if self.heads < 1:
            raise InputError(f"SparseVLM: heads={self.heads} must be 1 or more")

    @property
    def traits(self) -> Traits:
        recycles = self.version == "1.5"
        positions = "renumber" if recycles else "keep"
        return Traits(nested=False, positions=positions, needs_attention=True, merges_tokens=recycles)

    def sizes(self, k: int, count: int) -> list[int]:
        *firsts, last = zip((0, 0, 0), *SIZES[self.version], (OF, OF, OF), strict=True)
        return [round(float(np.interp(k * OF / count, last, first)) * count / OF) for first in firsts] + [k]

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        scores_CN = torch.stack([self._scores(pool, ctx) for pool in ctx.pools])
        if not self.traits.merges_tokens or k == tokens_CND.shape[1]:
            return highest(scores_CN, k)
        found = [
            recycle(tokens_ND, highest(scores_N[None], len(scores_N))[0], k, pool.generator(self.seed))
            for tokens_ND, scores_N, pool in zip(tokens_CND, scores_CN, ctx.pools, strict=True)
        ]
        picks, rows = zip(*found, strict=True)
        return Selection(torch.stack(picks), torch.stack(rows))

    def _scores(self, pool: Pool, ctx: Context) -> Tensor:
        """Attention of the raters to each token of a pool; [N]."""
        assert ctx.before is not None
        at_R, at_N = raters(pool, ctx), pool.at_N.to(ctx.question_BP.device)
        attention_HRP = ctx.before.rows(pool.row, at_R)
        if self.version == "1.5":
            return attention_HRP.mean(dim=(0, 1))[at_N]
        attention_HRN = attention_HRP.index_select(2, at_N) / rotary_bias(ctx.before, pool.row, at_R, at_N)
        most_H = highest(attention_HRN.sum(dim=(1, 2))[None], self.heads)[0]
        return attention_HRN[most_H].mean(dim=(0, 1))

    def flops(self, count: int, k: int, channels: int) -> int:
        """What the question's length does not decide: one rater's row, and the distances of recycled tokens."""
        recycled = _recycled(count - k) if self.traits.merges_tokens and k < count else 0
        return 2 * count * channels + 2 * recycled * recycled * channels


def raters(pool: Pool, ctx: Context) -> Tensor:
    """Positions of the text tokens that a pool's images call up; at least one.

    They are the same at every cut, and since nothing behind the images is dropped, as far from the end.
    """
    key, length = (pool.row, pool.cameras), ctx.question_BP.shape[1]
    if key not in ctx.notes:
        ctx.notes[key] = length - _called_up(pool, ctx)
    return length - ctx.notes[key]


def _called_up(pool: Pool, ctx: Context) -> Tensor:
    at_T = ctx.question_BP[pool.row].nonzero().flatten()
    if not len(at_T):
        raise InputError("SparseVLM: the prompt ends with an image, and the text behind it is what rates: put it last")
    whole_PD = ctx.prompt_BPD[pool.row]
    visual_ND = whole_PD.index_select(0, pool.whole(len(whole_PD)).to(whole_PD.device)).float()
    text_TD = ctx.embeddings_BPD[pool.row].index_select(0, at_T).float()
    share_T = (visual_ND @ text_TD.T).softmax(dim=1).mean(dim=0)
    above_T = share_T > share_T.mean()
    return at_T[above_T] if above_T.any() else at_T


def rotary_bias(view: LayerView, row: int, at_R: Tensor, at_N: Tensor) -> Tensor:
    """Scaled products of rotated vectors of ones, which depend on the distance of positions alone; [R, N]."""
    cos_PE, sin_PE = (part[row if len(part) > 1 else 0].float() for part in view.rotary)
    width = cos_PE.shape[1]
    turned_E = torch.ones(width, device=cos_PE.device)
    turned_E[: width // 2] = -1
    ones_PE = cos_PE + turned_E * sin_PE
    return (ones_PE[at_R] @ ones_PE[at_N].T / width**0.5).clamp(min=LEAST_BIAS * width**0.5)


def recycle(tokens_ND: Tensor, ranked_N: Tensor, k: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Keeps the best, and the means of clusters of the best dropped.

    Args:
        tokens_ND: states.
        ranked_N: their indices, best first.
        k: slots in all, below N.
        generator: of the noise.

    Returns:
        Slots [K], ascending: those of the kept tokens and the last of the others. And their rows [K, D]: the kept
        tokens in order, then the merged ones.
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
    return slots_K, torch.cat([tokens_ND[kept_K], density_peaks(recycled_MD, merged, generator)])


def _recycled(dropped: int) -> int:
    """How many of the dropped tokens are merged."""
    return int(0.3 * dropped) + 1


def _clusters(dropped: int) -> int:
    """Into how many."""
    return _recycled(dropped) // 10 + 1


def density_peaks(tokens_MD: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Means of clusters around the tokens that are dense and far from denser ones (DPC-KNN); [clusters, D].

    A token is as dense as its nearest neighbours, as many as there are clusters and itself among them, are near.
    """
    count, width = tokens_MD.shape
    distance_MM = pairwise_distance(tokens_MD[None].double(), "l2")[0] / width**0.5
    nearest = distance_MM.topk(clusters, dim=1, largest=False).values
    noise_M = torch.rand(count, generator=generator).to(distance_MM) * 1e-6
    density_M = (-nearest.square().mean(dim=1)).exp() + noise_M
    rank_M = highest(density_M[None], count)[0].argsort()
    denser_MM = rank_M < rank_M[:, None]  # a tie would make both of two neighbours a centre
    gap_M = distance_MM.masked_fill(~denser_MM, torch.inf).amin(dim=1).clamp(max=distance_MM.max())
    centre_C = highest((density_M * gap_M)[None], clusters)[0]
    owner_M = distance_MM[:, centre_C].argmin(dim=1)
    owner_M[centre_C] = torch.arange(clusters, device=owner_M.device)
    member_CM = (owner_M == torch.arange(clusters, device=owner_M.device)[:, None]).to(tokens_MD)
    return member_CM @ tokens_MD / member_CM.sum(dim=1, keepdim=True)
