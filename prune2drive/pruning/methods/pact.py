"""PACT (CVPR 2025, arXiv 2504.08966): unimportant tokens are pruned, similar ones merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.selection import highest, pairwise_distance

STEPS = 24  # of the bisection: cutoffs lie within 2, so that it ends at float32's resolution


@dataclass
class PACT(Pruner):
    """Prunes by importance to the mean query, then clusters the survivors and keeps one slot a cluster.

    Importance (EUTI) is the attention that the mean of all queries up to the last visual token pays, without rotary
    embedding, times the norm of the token's states. Clusters (DBDPC) are by cosine distance of rotated keys,
    all heads joined: from the densest token down, each becomes a centre unless one lies within the
    cutoff. Pruned tokens whose nearest centre is near enough join it too. A slot holds its members' mean
    and, with `proportional`, counts as often in attention as it has members.

    The authors cut at a fixed cutoff, so the number of clusters follows from the data. Here the budget is kept
    exactly: bisection, pool by pool, finds a cutoff that leaves k centres or more, while slightly above it fewer are
    left; the k densest are used. Where no cutoff leaves so many, the densest other survivors become centres.
    `share` is raised to the budget where it is below. What the authors' cutoff would keep is told as `raw_C`.
    All images are one pool there: `scope=global`.

    Args:
        share: of the tokens that survive pruning.
        cutoff: the authors', for `raw_C`.
        recover: pruned tokens join a centre within this many cutoffs.
        proportional: whether attention is weighed by the number of members.
    """

    layer: int = 4
    share: float = 0.55
    cutoff: float = 0.21
    recover: float = 1.5
    proportional: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise InputError(f"PACT: share={self.share} is outside (0, 1]: it is the share of tokens to cluster")
        for name in ("cutoff", "recover"):
            if getattr(self, name) < 0:
                raise InputError(f"PACT: {name}={getattr(self, name)} must be 0 or more")

    @property
    def traits(self) -> Traits:
        return Traits(nested=False, merges_tokens=True, proportional_attention=self.proportional)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Selection:
        importance_BP, keys_BGPE = importance(ctx), ctx.at.keys()
        importance_CN = torch.stack([importance_BP[pool.row, pool.at_N] for pool in ctx.pools]) * tokens_CND.norm(dim=2)
        keys_BPF = keys_BGPE.transpose(1, 2).flatten(2)
        keys_CNF = torch.stack(
            [keys_BPF[pool.row].index_select(0, pool.at_N.to(keys_BPF.device)) for pool in ctx.pools]
        )
        distance_CNN = pairwise_distance(keys_CNF.to(tokens_CND))
        found = [
            self._clusters(tokens_ND, importance_N, distance_NN, k)
            for tokens_ND, importance_N, distance_NN in zip(tokens_CND, importance_CN, distance_CNN, strict=True)
        ]
        picks, rows, sizes, raw = zip(*found, strict=True)
        return Selection(
            torch.stack(picks), torch.stack(rows), torch.stack(sizes) if self.proportional else None, list(raw)
        )

    def _clusters(
        self, tokens_ND: Tensor, importance_N: Tensor, distance_NN: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Of one pool: centres [K], densest first, their clusters' means and sizes, and the authors' number."""
        count = len(tokens_ND)
        usual = int(self.share * count) or 1
        ranked_N = highest(importance_N[None], count)[0]
        survivors_S, usual_S = (ranked_N[:size].sort().values for size in (max(usual, k), usual))
        visited_S, distance_SS = in_turn(distance_NN, survivors_S)
        cutoff, centres_K = exactly(distance_SS, k)
        picks_K = visited_S[centres_K]
        near_N, owner_N = distance_NN.index_select(1, picks_K).min(dim=1)
        survives_N = torch.zeros(count, dtype=torch.bool, device=tokens_ND.device)
        survives_N[survivors_S] = True
        owner_N[~survives_N & (near_N > self.recover * cutoff)] = k
        owner_N[picks_K] = torch.arange(k, device=tokens_ND.device)
        member_KN = (owner_N == torch.arange(k, device=tokens_ND.device)[:, None]).to(tokens_ND)
        sizes_K = member_KN.sum(dim=1)
        distance_UU = distance_SS if k <= usual else in_turn(distance_NN, usual_S)[1]
        raw = len(centres(distance_UU, self.cutoff, usual))
        return picks_K, member_KN @ tokens_ND / sizes_K[:, None], sizes_K, raw

    def flops(self, count: int, k: int, channels: int) -> int:
        """Queries and keys, which the layer has yet to project (at most D wide), and the survivors' distances."""
        survivors = max(int(self.share * count), k)
        return 4 * count * channels * channels + 2 * count * channels + 2 * survivors * survivors * channels


def importance(ctx: Context) -> Tensor:
    """Attention that the mean query of all positions up to the last visual token pays; [B, P], zero behind these."""
    seen_BP = ~ctx.question_BP
    if ctx.at.mask_BP is not None:
        seen_BP = seen_BP & ctx.at.mask_BP.to(seen_BP.device)
    keys_BGPE = ctx.at.keys(rotated=False).float()
    share_BP = seen_BP / seen_BP.sum(dim=1, keepdim=True)
    query_BHE = (share_BP[:, None, None] @ ctx.at.queries(rotated=False).float()).squeeze(2)
    query_BGRE = query_BHE.unflatten(1, (keys_BGPE.shape[1], -1))
    logits_BGRP = query_BGRE @ keys_BGPE.transpose(2, 3) * query_BHE.shape[-1] ** -0.5
    return logits_BGRP.masked_fill(~seen_BP[:, None, None], -torch.inf).softmax(dim=3).mean(dim=(1, 2))


def in_turn(distance_NN: Tensor, at_S: Tensor) -> tuple[Tensor, Tensor]:
    """Some tokens in the order in which they are visited, the densest first, and the distances between them."""
    distance_SS = distance_NN.index_select(0, at_S).index_select(1, at_S)
    order_S = by_density(distance_SS)
    return at_S[order_S], distance_SS.index_select(0, order_S).index_select(1, order_S)


def by_density(distance_SS: Tensor) -> Tensor:
    """Indices of tokens, those with the most and nearest neighbours first."""
    density_S = (-(distance_SS / 2).square()).exp().sum(dim=1)
    return highest(density_S[None], len(density_S))[0]


def centres(distance_SS: Tensor, cutoff: float, most: int) -> Tensor:
    """Tokens, in order, that have no earlier centre within the cutoff; no more than `most`.

    Whole numbers are sets of tokens here, one bit each, so that a centre costs no tensor operation.
    """
    near_SB = np.packbits(~(distance_SS > cutoff).cpu().numpy(), axis=1, bitorder="little")
    free = (1 << len(near_SB)) - 1
    found: list[int] = []
    while free and len(found) < most:
        found.append((free & -free).bit_length() - 1)
        free &= ~(int.from_bytes(near_SB[found[-1]].tobytes(), "little") | 1 << found[-1])
    return torch.tensor(found, device=distance_SS.device)


def exactly(distance_SS: Tensor, k: int) -> tuple[float, Tensor]:
    """A cutoff that leaves k centres, and fewer just above, and these; filled up in order where none does."""
    low, high = 0.0, 2.0
    found_K = centres(distance_SS, low, k)
    for _ in range(STEPS):
        middle = (low + high) / 2
        at_middle = centres(distance_SS, middle, k)
        if len(at_middle) == k:
            low, found_K = middle, at_middle
        else:
            high = middle
    left_S = torch.ones(len(distance_SS), dtype=torch.bool, device=distance_SS.device)
    left_S[found_K] = False
    others = left_S.nonzero().flatten()[: k - len(found_K)]
    return low, torch.cat([found_K, others]).sort().values
