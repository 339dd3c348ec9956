"""PACT (CVPR 2025, arXiv 2504.08966): prunes unimportant tokens and merges similar ones.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, S tokens that survive pruning, K kept,
D channels, H query heads, G key-value heads, R query heads of a key-value head, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.clustering import by_density, centres, cluster_means, exactly
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.selection import highest, pairwise_distance


@dataclass
class PACT(Pruner):
    """Prunes tokens by their importance to the mean query, clusters the survivors and keeps one slot a cluster.

    Importance (EUTI): the attention that the mean of all queries up to the last visual token pays, without rotary
    embedding, times the norm of the token's states. Clusters (DBDPC): by cosine distance of rotated keys, all heads
    joined; from the densest token down, a token becomes a centre unless an earlier centre lies within the cutoff.
    Pruned tokens near enough to a centre join it too. A slot holds its members' mean and, with `proportional`, counts
    in attention as often as it has members.

    Differs from the authors', who cut at a fixed cutoff, so that the number of clusters follows from the data: here
    bisection finds, pool by pool, the cutoff that leaves k centres. Where no cutoff leaves so many, the densest other
    survivors become centres; `share` is raised to the budget where it is below. `raw_C` is the number that the
    authors' cutoff would keep. They make one pool of all images: `scope=global`.

    Args:
        share: share of the tokens that survive pruning.
        cutoff: the authors' cutoff, for `raw_C`.
        recover: pruned tokens join a centre within this many cutoffs.
        proportional: whether attention is weighted by the number of members.
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
        clusters = [
            self.clusters(tokens_ND, importance_N, distance_NN, k)
            for tokens_ND, importance_N, distance_NN in zip(tokens_CND, importance_CN, distance_CNN, strict=True)
        ]
        picks, rows, sizes, raw = zip(*clusters, strict=True)
        return Selection(
            torch.stack(picks), torch.stack(rows), torch.stack(sizes) if self.proportional else None, list(raw)
        )

    def clusters(
        self, tokens_ND: Tensor, importance_N: Tensor, distance_NN: Tensor, k: int
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Clusters one pool.

        Returns:
            Centres [K], densest first; the means [K, D] and sizes [K] of their clusters; the number of clusters at the
            authors' cutoff.
        """
        usual = int(self.share * len(tokens_ND)) or 1
        ranked_N = highest(importance_N[None], len(tokens_ND))[0]
        survivors_S, usual_S = (ranked_N[:size].sort().values for size in (max(usual, k), usual))
        densest_S, distance_SS = _densest_first(distance_NN, survivors_S)
        cutoff, centres_K = exactly(distance_SS, k)
        picks_K = densest_S[centres_K]
        near_N, owner_N = distance_NN.index_select(1, picks_K).min(dim=1)
        survives_N = torch.zeros_like(near_N, dtype=torch.bool)
        survives_N[survivors_S] = True
        owner_N[~survives_N & (near_N > self.recover * cutoff)] = k
        owner_N[picks_K] = torch.arange(k, device=owner_N.device)
        means_KD, sizes_K = cluster_means(tokens_ND, owner_N, k)
        usual_SS = distance_SS if k <= usual else _densest_first(distance_NN, usual_S)[1]
        return picks_K, means_KD, sizes_K, len(centres(usual_SS, self.cutoff, usual))

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts queries and keys, which the layer has yet to project (at most D wide), and survivors' distances."""
        survivors = max(int(self.share * count), k)
        return 4 * count * channels * channels + 2 * count * channels + 2 * survivors * survivors * channels


def importance(ctx: Context) -> Tensor:
    """Returns the attention that the mean query of all positions up to the last visual token pays; [B, P].

    Positions after the last visual token get 0.
    """
    seen_BP = ~ctx.question_BP
    if ctx.at.mask_BP is not None:
        seen_BP = seen_BP & ctx.at.mask_BP.to(seen_BP.device)
    keys_BGPE = ctx.at.keys(rotated=False).float()
    share_BP = seen_BP / seen_BP.sum(dim=1, keepdim=True)
    query_BHE = (share_BP[:, None, None] @ ctx.at.queries(rotated=False).float()).squeeze(2)
    query_BGRE: Tensor = query_BHE.unflatten(1, (keys_BGPE.shape[1], -1))
    scaling: float = query_BHE.shape[-1] ** -0.5
    logits_BGRP = query_BGRE @ keys_BGPE.transpose(2, 3) * scaling
    return logits_BGRP.masked_fill(~seen_BP[:, None, None], -torch.inf).softmax(dim=3).mean(dim=(1, 2))


def _densest_first(distance_NN: Tensor, at_S: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts some tokens by density among themselves; returns them [S] and the distances between them [S, S]."""
    distance_SS = distance_NN.index_select(0, at_S).index_select(1, at_S)
    order_S = by_density(distance_SS)
    return at_S[order_S], distance_SS.index_select(0, order_S).index_select(1, order_S)
