"""Clustering of tokens around the dense ones, for methods that merge tokens.

Shape suffixes: S and M tokens, D channels, K centres.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prune2drive.pruning.selection import highest, pairwise_distance

STEPS = 24  # of the bisection: cutoffs lie within 2, so that it ends at float32's resolution


def by_density(distance_SS: Tensor) -> Tensor:
    """Ranks tokens by density, the sum of exp(-(d / 2)^2) over all tokens (PACT, DBDPC); densest first, [S]."""
    density_S = (-(distance_SS / 2).square()).exp().sum(dim=1)
    return highest(density_S[None], len(density_S))[0]


def centres(distance_SS: Tensor, cutoff: float, most: int) -> Tensor:
    """Selects the tokens, in order, that have no earlier centre within the cutoff; [K], no more than `most`.

    Distances lie on the CPU, where whole numbers serve as sets of tokens, one bit a token: a centre costs no tensor
    operation.
    """
    near_SB = np.packbits(~(distance_SS > cutoff).numpy(), axis=1, bitorder="little")
    free = (1 << len(near_SB)) - 1
    found: list[int] = []
    while free and len(found) < most:
        found.append((free & -free).bit_length() - 1)
        free &= ~(int.from_bytes(near_SB[found[-1]].tobytes(), "little") | 1 << found[-1])
    return torch.tensor(found)


def exactly(distance_SS: Tensor, k: int, cutoff: float) -> tuple[float, Tensor]:
    """Finds k centres at the cutoff nearest to a given one; many cutoffs leave the same number.

    Returns:
        The cutoff and its centres [K], ascending. Where no cutoff leaves k, it is one that leaves more, of which the
        first are taken, or 0, and the first other tokens fill up the number.
    """
    usual_K = centres(distance_SS, cutoff, k + 1)
    if len(usual_K) == k:
        return cutoff, usual_K
    is_too_wide = len(usual_K) < k
    low, high = (0.0, cutoff) if is_too_wide else (cutoff, 2.0)
    for _ in range(STEPS):  # from `low` to `high` the number falls to k, or from k
        middle = (low + high) / 2
        if len(centres(distance_SS, middle, k + 1)) >= k + (not is_too_wide):
            low = middle
        else:
            high = middle
    nearest = low if is_too_wide or len(centres(distance_SS, high, k)) < k else high
    found_K = centres(distance_SS, nearest, k)
    is_other_S = torch.ones(len(distance_SS), dtype=torch.bool)
    is_other_S[found_K] = False
    others = is_other_S.nonzero().flatten()[: k - len(found_K)]
    return nearest, torch.cat([found_K, others]).sort().values


def density_peaks(tokens_MD: Tensor, clusters: int, noise_M: Tensor) -> Tensor:
    """Returns the means of clusters around tokens that are dense and far from denser ones (DPC-KNN); [clusters, D].

    A token's density is exp(-mean of its squared distances to the `clusters` nearest tokens, itself included).

    Args:
        tokens_MD: states.
        clusters: number of clusters.
        noise_M: numbers in [0, 1), a millionth of which separates equal densities.
    """
    count, width = tokens_MD.shape
    distance_MM = pairwise_distance(tokens_MD[None].double(), "l2")[0] / width**0.5
    nearest = distance_MM.topk(clusters, dim=1, largest=False).values
    density_M = (-nearest.square().mean(dim=1)).exp() + noise_M.to(distance_MM) * 1e-6
    rank_M = highest(density_M[None], count)[0].argsort()
    is_denser_MM = rank_M < rank_M[:, None]  # by rank: a tie would make both of two neighbours a centre
    gap_M = distance_MM.masked_fill(~is_denser_MM, torch.inf).amin(dim=1).clamp(max=distance_MM.max())
    centre_K = highest((density_M * gap_M)[None], clusters)[0]
    owner_M = distance_MM[:, centre_K].argmin(dim=1)
    owner_M[centre_K] = torch.arange(clusters, device=owner_M.device)
    return cluster_means(tokens_MD, owner_M, clusters)[0]


def cluster_means(tokens_MD: Tensor, owner_M: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Averages each cluster's tokens.

    Args:
        tokens_MD: states.
        owner_M: cluster of each token; a token with another number is in none.
        clusters: number of clusters.

    Returns:
        Means [clusters, D] and numbers of members [clusters].
    """
    is_member_KM = (owner_M == torch.arange(clusters, device=owner_M.device)[:, None]).to(tokens_MD)
    sizes_K = is_member_KM.sum(dim=1)
    return is_member_KM @ tokens_MD / sizes_K[:, None], sizes_K
