"""Selectors: pure tensor code that says which tokens to keep.

Shape suffixes: C cameras (or any batch of token pools), N tokens, D channels, K kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

METRICS = ("cosine", "l1", "l2")
MODES = ("farthest", "nearest")
STARTS = ("isolated", "centroid", "random")


def budget(ratio: float, count: int, rounding: str = "nearest") -> int:
    """Returns the budget: how many of `count` tokens a keep ratio retains. No other place says so.

    Args:
        ratio: keep ratio in (0, 1].
        count: tokens of the camera.
        rounding: `nearest` is `max(1, floor(ratio * count + 0.5))`; `seed` is `int(ratio * count)`, as
            the original implementation truncates, for parity with it.

    Raises:
        ValueError: a ratio outside (0, 1], another rounding, or nothing left to keep.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"keep ratio {ratio} is outside (0, 1]: it is the share of tokens retained, e.g. 0.1")
    if rounding == "nearest":
        return max(1, int(ratio * count + 0.5))
    if rounding != "seed":
        raise ValueError(f"unknown rounding {rounding!r}: choose 'nearest' or 'seed'")
    if int(ratio * count) < 1:
        raise ValueError(
            f"rounding=seed keeps int({ratio} * {count}) = 0 tokens: raise the ratio or use rounding=nearest"
        )
    return int(ratio * count)


def pairwise_distance(tokens_CND: Tensor, metric: str = "cosine") -> Tensor:
    """Computes the distances between the tokens of each pool; [C, N, N].

    `cosine` is 1 - cos, whose norms are the roots of the product's diagonal; `l1` and `l2` are taken on the tokens
    as they are, measured from their mean so that components they share do not drown the differences in rounding.
    """
    if metric == "cosine" and tokens_CND.element_size() < 4:  # half precision cannot hold products of hidden states
        unit_CND = torch.nn.functional.normalize(tokens_CND, dim=-1)
        return 1 - unit_CND @ unit_CND.transpose(1, 2)
    if metric == "cosine":
        product_CNN = tokens_CND @ tokens_CND.transpose(1, 2)
        scale_CN = product_CNN.diagonal(dim1=1, dim2=2).clamp(min=1e-24).rsqrt()
        return product_CNN.mul_(-scale_CN[:, :, None]).mul_(scale_CN[:, None]).add_(1)
    tokens_CND = tokens_CND - tokens_CND.mean(dim=1, keepdim=True)
    return torch.cdist(tokens_CND, tokens_CND, p=1.0 if metric == "l1" else 2.0)


def farthest_points(
    tokens: Tensor,
    k: int,
    metric: str = "cosine",
    start: str | int | Tensor = "isolated",
    mode: str = "farthest",
    generator: torch.Generator | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Selects tokens by farthest point sampling (T-FPS; Prune2Drive, arXiv 2508.13305).

    Each step takes the unselected token whose distance to its nearest selected token is largest. The
    picks for a smaller k are therefore the first of those for a larger one. Deterministic; ties go
    to the lowest index.

    Args:
        tokens: [N, D], or [C, N, D] for C independent pools.
        k: tokens to select, 1 <= k <= N.
        metric: `cosine`, `l1` or `l2`.
        start: the first pick: the token farthest from its nearest neighbour (`isolated`, the original
            implementation's choice), the one farthest from the mean token (`centroid`), a `random`
            one (the paper's text), an index, or one index a pool as a tensor [C].
        mode: `nearest` takes the smallest distance instead: the paper's ablation.
        generator: for `start="random"`, on the tokens' device or the CPU.
        weight: multiplies each token's distances, those of an `isolated` or `centroid` start too: a
            positive tensor of the tokens' shape without D; all 1 by default.

    Returns:
        Indices in selection order: [K], or [C, K] for pools.

    Raises:
        ValueError: an unknown option, tokens of another rank, or k out of range.
    """
    if tokens.ndim not in (2, 3):
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}: expected [N, D] or [C, N, D]")
    tokens_CND = tokens if tokens.ndim == 3 else tokens[None]
    weight_CN = None if weight is None else weight.reshape(tokens_CND.shape[:2])
    picks_CK, _ = farthest_points_and_gaps(tokens_CND, k, metric, start, mode, generator, weight_CN)
    return picks_CK if tokens.ndim == 3 else picks_CK[0]


def farthest_points_and_gaps(
    tokens_CND: Tensor,
    k: int,
    metric: str = "cosine",
    start: str | int | Tensor = "isolated",
    mode: str = "farthest",
    generator: torch.Generator | None = None,
    weight_CN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Selects as `farthest_points` does, and says how far each pick was.

    Returns:
        Indices in selection order, and each pick's weighted distance from the nearest one before it, infinity for the
        first; both [C, K].

    Raises:
        ValueError: an unknown option, or k out of range.
    """
    if metric not in METRICS or mode not in MODES:
        raise ValueError(f"metric {metric!r} is not one of {METRICS}, or mode {mode!r} not one of {MODES}")
    pools, count, _ = tokens_CND.shape
    if not 1 <= k <= count:
        raise ValueError(f"cannot select {k} of {count} tokens")

    distance_CNN = pairwise_distance(tokens_CND, metric)
    own_CN = distance_CNN.diagonal(dim1=1, dim2=2)
    own_CN.fill_(torch.inf)
    pick_C = _first_picks(tokens_CND, distance_CNN, metric, start, generator, weight_CN)
    if weight_CN is not None:
        distance_CNN.mul_(weight_CN[:, None])
    own_CN.fill_(-torch.inf)  # a picked token is nearest to itself, and so never the farthest again
    distance_MN = distance_CNN.flatten(0, 1)
    start_C = torch.arange(0, pools * count, count, device=tokens_CND.device)
    picks_CK = torch.empty(pools, k, dtype=torch.long, device=tokens_CND.device)
    gaps_CK = distance_CNN.new_full((pools, k), torch.inf)
    gap_CN = torch.full_like(own_CN, torch.inf)
    for step in range(k):
        picks_CK[:, step] = pick_C
        gap_CN = torch.minimum(gap_CN, distance_MN.index_select(0, start_C + pick_C))
        wanted_CN = gap_CN if mode == "farthest" else -gap_CN.masked_fill(gap_CN == -torch.inf, torch.inf)
        wanted_C, pick_C = wanted_CN.max(dim=1)
        if step + 1 < k:
            gaps_CK[:, step + 1] = wanted_C.abs()
    return picks_CK, gaps_CK


def _first_picks(
    tokens_CND: Tensor,
    distance_CNN: Tensor,
    metric: str,
    start: str | int | Tensor,
    generator: torch.Generator | None,
    weight_CN: Tensor | None,
) -> Tensor:
    """Returns the first pick of each pool, [C]; a token's distance from itself is infinite."""
    pools, count, _ = tokens_CND.shape
    device = tokens_CND.device
    if isinstance(start, Tensor) or (isinstance(start, int) and not isinstance(start, bool)):
        first_C = torch.as_tensor(start).expand(pools)
        if ((first_C < 0) | (first_C >= count)).any():
            raise ValueError(f"start index {start} is outside the {count} tokens")
        return first_C.to(device)
    if start == "random":
        source = generator.device if generator is not None else device
        return torch.randint(count, (pools,), generator=generator, device=source).to(device)
    if start == "isolated":
        # Both ways, which differ by rounding: two tokens nearest to each other tie.
        alone_CN = torch.minimum(distance_CNN.amin(dim=1), distance_CNN.amin(dim=2))
    elif start == "centroid":
        alone_CN = outlier_scores(tokens_CND, metric)
    else:
        raise ValueError(f"unknown start {start!r}: choose one of {STARTS} or an index")
    return (alone_CN if weight_CN is None else alone_CN * weight_CN).argmax(dim=1)


def determinantal(similarity_CNN: Tensor, log_quality_CN: Tensor, k: int) -> Tensor:
    """Selects tokens by greedy MAP of determinantal point processes with kernel q_i s_ij q_j.

    A step takes the token that multiplies the determinant most: q_i^2 times the residual of its similarity to itself
    after projection on the kept ones, tracked by rows of the Cholesky factor (Chen, Zhang & Zhou, NeurIPS 2018).
    Quality cancels out of the factor, so that a pick of small quality loses no precision. A residual within rounding
    of zero (N times the type's epsilon, as in LAPACK's pivoted Cholesky) counts as none; tokens without any come last,
    best quality first.

    Args:
        similarity_CNN: positive semidefinite similarities s.
        log_quality_CN: log q.
        k: tokens to select, 1 <= k <= N.

    Returns:
        Indices in selection order [C, K]; the picks for a smaller k are the first of those for a larger one.
    """
    pools, count = log_quality_CN.shape
    pool_C = torch.arange(pools, device=similarity_CNN.device)
    rounding = count * torch.finfo(similarity_CNN.dtype).eps
    residual_CN = similarity_CNN.diagonal(dim1=1, dim2=2).clone()
    free_CN = torch.ones_like(residual_CN, dtype=torch.bool)
    factor_CKN = similarity_CNN.new_zeros(pools, k, count)
    picks_CK = torch.empty(pools, k, dtype=torch.long, device=similarity_CNN.device)
    for step in range(k):
        adds_CN = free_CN & (residual_CN > rounding)
        gain_CN = (2 * log_quality_CN + residual_CN.clamp(min=rounding).log()).masked_fill(~adds_CN, -torch.inf)
        other_CN = log_quality_CN.masked_fill(~free_CN, -torch.inf)
        pick_C = torch.where(adds_CN.any(dim=1, keepdim=True), gain_CN, other_CN).argmax(dim=1)
        picks_CK[:, step] = pick_C
        free_CN[pool_C, pick_C] = False
        projected_CN = (factor_CKN[pool_C, :step, pick_C].unsqueeze(1) @ factor_CKN[:, :step]).squeeze(1)
        scale_C1 = residual_CN[pool_C, pick_C].clamp(min=rounding).sqrt()[:, None]
        factor_CKN[:, step] = (similarity_CNN[pool_C, pick_C] - projected_CN) / scale_C1
        residual_CN = residual_CN - factor_CKN[:, step] ** 2
    return picks_CK


def greedy_coverage(coverage_CNR: Tensor, k: int, uncovered: float = 0.0, weight_CN: Tensor | None = None) -> Tensor:
    """Selects tokens by greedy maximum coverage (facility location).

    Each of R things is covered as well as by the best of the kept tokens. A step takes the token that adds most to the
    sum over all things, times the token's weight. Gains that differ by rounding are ties, as of two tokens that cover
    just each other; ties go to the lowest index.

    Args:
        coverage_CNR: how well each token covers each thing.
        k: tokens to select, 1 <= k <= N.
        uncovered: coverage of a thing without any kept token.
        weight_CN: factor of each token's gain; all 1 by default.

    Returns:
        Indices in selection order [C, K]; the picks for a smaller k are the first of those for a larger one.
    """
    pools, count, things = coverage_CNR.shape
    pool_C = torch.arange(pools, device=coverage_CNR.device)
    weight_CN = coverage_CNR.new_ones(pools, count) if weight_CN is None else weight_CN
    scale_C1 = coverage_CNR.abs().mean(dim=(1, 2))[:, None] * weight_CN.mean(dim=1, keepdim=True)
    rounding = 8 * torch.finfo(coverage_CNR.dtype).eps
    cover_CR = coverage_CNR.new_full((pools, things), uncovered)
    free_CN = torch.ones_like(weight_CN, dtype=torch.bool)
    picks_CK = torch.empty(pools, k, dtype=torch.long, device=coverage_CNR.device)
    for step in range(k):
        gain_CN = (coverage_CNR - cover_CR[:, None]).clamp_(min=0).sum(dim=2) * weight_CN
        gain_CN = gain_CN.masked_fill(~free_CN, -torch.inf)
        best_C1 = gain_CN.amax(dim=1, keepdim=True)
        pick_C = (gain_CN >= best_C1 - rounding * (scale_C1 + best_C1)).int().argmax(dim=1)
        picks_CK[:, step] = pick_C
        free_CN[pool_C, pick_C] = False
        cover_CR = torch.maximum(cover_CR, coverage_CNR[pool_C, pick_C])
    return picks_CK


def cosines(tokens_CND: Tensor) -> Tensor:
    """Returns the cosine of each token with each token of its pool; [C, N, N]."""
    unit_CND = torch.nn.functional.normalize(tokens_CND, dim=-1)
    return unit_CND @ unit_CND.transpose(1, 2)


def outlier_scores(tokens_CND: Tensor, metric: str = "cosine") -> Tensor:
    """Computes the distance of each token from its pool's mean token, of unit tokens for cosine; [C, N]."""
    if metric == "cosine":  # without a copy of unit tokens, which would take as long as the distances between them
        scale_CN = tokens_CND.norm(dim=2).clamp(min=1e-12).reciprocal()
        mean_C1D = torch.nn.functional.normalize(scale_CN[:, None] @ tokens_CND, dim=-1)
        cosine_CN: Tensor = (tokens_CND @ mean_C1D.transpose(1, 2)).squeeze(2) * scale_CN
        return 1 - cosine_CN
    mean_C1D = tokens_CND.mean(dim=1, keepdim=True)
    return torch.cdist(tokens_CND, mean_C1D, p=1.0 if metric == "l1" else 2.0).squeeze(2)


def highest(scores_CN: Tensor, k: int) -> Tensor:
    """Returns the indices of each pool's k highest scores, best first, ties to the lowest index; [C, K]."""
    return scores_CN.argsort(dim=1, descending=True, stable=True)[:, :k]


def grid_points(rows: int, cols: int, k: int) -> Tensor:
    """Places exactly k points on a rows x cols grid as a regular lattice.

    The lattice r x c <= k is the one that covers most with near-square meshes, its points lie in the
    middle of equal parts of each side (the centred lattice), and the k - r*c left over go one by one to the
    cell farthest from all chosen ones.

    Returns:
        Raster indices [K]: the lattice in raster order, then the fill in its order.
    """
    if not 1 <= k <= rows * cols:
        raise ValueError(f"cannot place {k} points on a {rows} x {cols} grid")
    r, c = max(
        ((r, min(cols, k // r)) for r in range(1, min(rows, k) + 1)), key=lambda shape: _cover(rows, cols, *shape)
    )
    row_R = ((torch.arange(r) + 0.5) * rows / r).long()
    col_C = ((torch.arange(c) + 0.5) * cols / c).long()
    picks = (row_R[:, None] * cols + col_C).flatten().tolist()
    cells = torch.stack([torch.arange(rows * cols) // cols, torch.arange(rows * cols) % cols], dim=1).float()
    gap = torch.cdist(cells, cells[picks]).amin(dim=1)
    while len(picks) < k:
        picks.append(int(gap.argmax()))
        gap = torch.minimum(gap, (cells - cells[picks[-1]]).norm(dim=1))
    return torch.tensor(picks)


def _cover(rows: int, cols: int, r: int, c: int) -> tuple[float, int]:
    aspect = (rows / r) / (cols / c)
    return r * c * min(aspect, 1 / aspect) ** 0.5, r
