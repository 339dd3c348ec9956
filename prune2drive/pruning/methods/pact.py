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
    bisection finds, pool by pool, the cutoff nearest to theirs that leaves k centres, so that clusters are theirs where
    their cutoff leaves k. Where no cutoff leaves so many, the densest other survivors become centres; `share` is raised
    to the budget where it is below. `raw_C` is the number that the authors' cutoff would keep. They make one pool of
    all images: `scope=global`.

    Args:
        share: share of the tokens that survive pruning.
        cutoff: the authors' cutoff.
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
        return Traits(
            nested=False,
            reads_other_cameras=True,  # through the mean query of the whole prompt
            merges_tokens=True,
            proportional_attention=self.proportional,
        )

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Selection:
        importance_CN = ctx.of_pools(importance(ctx)) * tokens_CND.norm(dim=2)
        keys_CNF = ctx.of_pools(ctx.at.keys().transpose(1, 2).flatten(2))
        return self.clusters(tokens_CND, importance_CN, pairwise_distance(keys_CNF.to(tokens_CND)), k)

    def clusters(self, tokens_CND: Tensor, importance_CN: Tensor, distance_CNN: Tensor, k: int) -> Selection:
        """Clusters each pool: its k centres, densest first, and the means and sizes of their clusters.

        Bisection runs on the host, to which distances go in one copy.
        """
        count = importance_CN.shape[1]
        usual = int(self.share * count) or 1
        ranked_CN = highest(importance_CN, count)
        survivors_CS, usual_CS = (ranked_CN[:, :size].sort(dim=1).values for size in (max(usual, k), usual))
        densest_CS, distance_CSS = _densest_first(distance_CNN, survivors_CS)
        usual_CSS = distance_CSS if k <= usual else _densest_first(distance_CNN, usual_CS)[1]
        found = [exactly(distance_SS, k, self.cutoff) for distance_SS in distance_CSS.cpu()]
        centres_CK = torch.stack([centres_K for _, centres_K in found]).to(densest_CS.device)
        raw_C = [len(centres(distance_SS, self.cutoff, usual)) for distance_SS in usual_CSS.cpu()]

        picks_CK, rows, sizes = densest_CS.gather(1, centres_CK), [], []
        survives_CN = torch.zeros_like(importance_CN, dtype=torch.bool).scatter_(1, survivors_CS, True)
        for pool, (cutoff, _) in enumerate(found):
            picks_K = picks_CK[pool]
            near_N, owner_N = distance_CNN[pool].index_select(1, picks_K).min(dim=1)
            owner_N[~survives_CN[pool] & (near_N > self.recover * cutoff)] = k
            owner_N[picks_K] = torch.arange(k, device=owner_N.device)
            means_KD, sizes_K = cluster_means(tokens_CND[pool], owner_N, k)
            rows.append(means_KD)
            sizes.append(sizes_K)
        return Selection(picks_CK, torch.stack(rows), torch.stack(sizes) if self.proportional else None, raw_C)

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


def _densest_first(distance_CNN: Tensor, at_CS: Tensor) -> tuple[Tensor, Tensor]:
    """Sorts some tokens by density among themselves; returns them [C, S] and the distances between them [C, S, S]."""
    sorted_CS = torch.stack(
        [
            at_S[by_density(distance_NN.index_select(0, at_S).index_select(1, at_S))]
            for distance_NN, at_S in zip(distance_CNN, at_CS, strict=True)
        ]
    )
    between = [
        distance_NN.index_select(0, at_S).index_select(1, at_S)
        for distance_NN, at_S in zip(distance_CNN, sorted_CS, strict=True)
    ]
    return sorted_CS, torch.stack(between)
