"""What SparseVLM makes of the tokens that it drops, against the rule written out one token at a time."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.pruning.clustering import density_peaks
from prune2drive.pruning.methods.sparsevlm import recycle


def noise(count, seed):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def tokens_of(count, width=6, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@given(st.integers(2, 150), st.data())
def test_slots_and_rows(count, data):
    """Kept, merged and lost tokens are all there are, in the numbers that the authors' rule gives."""
    k, seed = data.draw(st.integers(1, count - 1)), data.draw(st.integers(0, 9))
    tokens, ranked = tokens_of(count, seed=seed), torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    slots, rows = recycle(tokens, ranked, noise(count, 7), k)
    assert len(slots) == len(set(slots.tolist())) == len(rows) == k
    assert (slots.diff() > 0).all()
    kept = next(kept for kept in range(k, -1, -1) if kept < k or k == 1 if enough(count, kept, k))
    merged = k - kept
    best = sorted(ranked[:kept].tolist())
    dropped = sorted(ranked[kept:].tolist())
    assert torch.equal(rows[:kept], tokens[best])
    assert set(slots.tolist()) == {*best, *dropped[len(dropped) - merged :]}
    if merged:
        recycled = ranked[kept : kept + int(0.3 * (count - kept)) + 1]
        slow = slow_peaks(tokens[recycled].double(), merged, torch.Generator().manual_seed(7))
        torch.testing.assert_close(rows[kept:].double(), slow, atol=1e-6, rtol=1e-6)


def enough(count, kept, k):
    """Whether the clusters of what is dropped besides `kept` fill the k slots, or half of them, or k is one."""
    clusters = int((int(0.3 * (count - kept)) + 1) / 10) + 1
    return k - kept in (clusters, k // 2) and k - kept <= min(clusters, k // 2)


def slow_peaks(points, clusters, generator):
    noise = (torch.rand(len(points), generator=generator) * 1e-6).tolist()
    width = points.shape[1]
    distance = [[float((a - b).square().sum() / width) ** 0.5 for b in points] for a in points]
    density = []
    for mine, extra in zip(distance, noise, strict=True):
        nearest = sorted(mine)[:clusters]
        density.append(float(torch.tensor(-sum(d * d for d in nearest) / clusters).exp()) + extra)
    furthest = max(map(max, distance))
    gap = [
        min([d for d, other in zip(mine, density, strict=True) if other > density[i]], default=furthest)
        for i, mine in enumerate(distance)
    ]
    order = sorted(range(len(points)), key=lambda i: -density[i] * gap[i])
    centres = order[:clusters]
    members = [[] for _ in centres]
    for i, mine in enumerate(distance):
        members[centres.index(i) if i in centres else min(range(clusters), key=lambda c: mine[centres[c]])].append(i)
    return torch.stack([points[own].mean(dim=0) for own in members])


def test_merged_tokens_of_separate_clouds_are_their_means():
    clouds = torch.tensor([[0.0, 0], [10, 0], [0, 10]]).repeat_interleave(5, 0)
    points = clouds + 0.01 * tokens_of(15, 2)
    found = density_peaks(points, 3, noise(15, 0))
    expected = points.view(3, 5, 2).mean(dim=1)
    assert all((found - mean).abs().amax(dim=1).min() < 1e-5 for mean in expected)


def test_the_seed_decides_between_equal_densities():
    points = torch.zeros(20, 3)
    points[:, 0] = torch.arange(20)  # every inner point is as dense as the others
    found = {seed: density_peaks(points, 2, noise(20, seed)) for seed in (0, 0, 1, 2, 3)}
    again = density_peaks(points, 2, noise(20, 0))
    assert torch.equal(found[0], again)
    assert any(not torch.equal(found[0], other) for other in found.values())
