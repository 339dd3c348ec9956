"""Paired differences of many runs at once, and Pareto fronts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.simultaneous import Margin, group_sums, margins, pareto_front, resampled_groups


def quantile(values, share):
    """Linear interpolation between order statistics, as in every textbook."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low = math.floor(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def by_the_formula(difference_MN, group_N, groups, resamples, seed):
    """Each interval and p value, question by question."""
    members = [[n for n, group in enumerate(group_N) if group == g] for g in range(groups)]
    means = [sum(row) / len(row) for row in difference_MN]
    errors = []
    for row, mean in zip(difference_MN, means, strict=True):
        residuals = [sum(row[n] - mean for n in names) for names in members]
        errors.append(math.sqrt(sum(each**2 for each in residuals)) / len(row))
    weights = np.concatenate(list(resampled_groups(groups, resamples, seed)))
    largest = []
    for weight_G in weights:
        drawn = [n for g in range(groups) for n in members[g] * int(weight_G[g])]
        deviations = [
            abs(sum(row[n] for n in drawn) / len(drawn) - mean) / error
            for row, mean, error in zip(difference_MN, means, errors, strict=True)
            if error
        ]
        largest.append(max(deviations, default=0))
    correction = math.sqrt(groups / (groups - 1))
    found = []
    for mean, error in zip(means, errors, strict=True):
        half = quantile(largest, 0.95) * error * correction
        above = sum(each >= abs(mean) / (error or 1) / correction - 1e-9 for each in largest)
        found.append((mean, mean - half, mean + half, (1 + above) / (1 + resamples)))
    return found


def test_intervals_are_those_of_the_formula():
    rng = np.random.default_rng(5)
    group_N = rng.integers(0, 9, 60)
    group_N[:9] = range(9)
    difference_MN = rng.normal(0.3, 1, (4, 60)) + rng.normal(0, 1, 9)[group_N]
    theirs_N = rng.normal(0, 1, 60)
    sum_MG = np.array([group_sums(row, group_N, 9) for row in (theirs_N, *(theirs_N + difference_MN))])
    pairs = [(run, 0) for run in range(1, 5)]
    found = margins(sum_MG, np.bincount(group_N)[None].astype(float), pairs, resamples=200, seed=3)
    expected = by_the_formula(difference_MN, group_N, 9, 200, 3)
    for margin, each in zip(found, expected, strict=True):
        assert (margin.value, margin.low, margin.high, margin.p) == pytest.approx(each)
        assert margin.n == 60 and margin.is_clear == (margin.low > 0 or margin.high < 0)
        assert margin.is_clear == (margin.p <= 0.05)


def test_blocks_of_resamples_are_one_stream(monkeypatch):
    whole = np.concatenate(list(resampled_groups(7, 50, seed=1)))
    monkeypatch.setattr("prune2drive.metrics.simultaneous.BLOCK", 20)
    parts = list(resampled_groups(7, 50, seed=1))
    assert len(parts) == 25 and np.array_equal(np.concatenate(parts), whole) and (whole.sum(axis=1) == 7).all()


def test_all_intervals_of_a_family_hold_together():
    """20 runs as good as the baseline: some interval of the usual kind misses more often than not, ours in 5 %."""
    rng = np.random.default_rng(0)
    experiments, runs, groups, each = 300, 20, 60, 5
    missed = alone = 0
    for seed in range(experiments):
        right = rng.random((runs + 1, groups, 1)) + rng.normal(0, 0.5, (runs + 1, groups, each))
        sum_MG = (right[1:] - right[0]).sum(axis=2)
        count_MG = np.full((1, groups), float(each))
        each_MG = np.vstack([np.zeros(groups), sum_MG])
        found = margins(each_MG, count_MG, [(run, 0) for run in range(1, runs + 1)], resamples=400, seed=seed)
        missed += any(margin.is_clear for margin in found)
        error_M = sum_MG.std(axis=1, ddof=1) / math.sqrt(groups)
        alone += bool((abs(sum_MG.mean(axis=1)) > 1.96 * error_M).any())
    assert missed / experiments < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / experiments)
    assert alone / experiments > 0.3


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(1)
    sum_MG = rng.normal([[0.0]] * 11 + [[1.0]], 1, (12, 80))
    *nothing, found = margins(sum_MG, np.ones((1, 80)), [(run, 0) for run in range(1, 12)])
    assert found.low > 0.3 and found.p < 0.001 and not any(margin.is_clear for margin in nothing)


def test_means_of_different_questions_are_paired_by_kind():
    """Two runs, two kinds: what the kinds differ in does not enter; the intervals are those of the differences."""
    rng = np.random.default_rng(2)
    sum_MG, count_MG = rng.normal(0, 1, (4, 30)), np.repeat(rng.integers(1, 5, (2, 30)), 2, axis=0).astype(float)
    sum_MG[2:] += 100 * count_MG[2:]
    pairs = margins(sum_MG, count_MG, [(0, 1), (2, 3)], resamples=300)
    alone_MG = np.vstack([sum_MG[0] - sum_MG[1], sum_MG[2] - sum_MG[3], np.zeros((2, 30))])
    expected = margins(alone_MG, count_MG[[0, 2, 0, 2]], [(0, 2), (1, 3)], resamples=300)
    for margin, each in zip(pairs, expected, strict=True):
        assert (margin.value, margin.low, margin.p) == pytest.approx((each.value, each.low, each.p))
        assert margin.n == each.n


def test_runs_that_never_differ_have_no_width():
    sum_MG = np.array([[2.0, 0, 1], [2, 0, 1], [3, 0, 2]])
    same, other = margins(sum_MG, np.ones((1, 3)), [(0, 1), (2, 1)])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1) and other.low < other.value < other.high


def test_an_interval_is_cut_to_what_is_possible_and_nothing_else_changes():
    """Nearly all answers of one run are lost, of another hardly any."""
    lost_G = np.array([1.0] * 11 + [0.7])
    sum_MG = np.array([1 - lost_G, 1 - lost_G[::-1] / 50, np.ones(12)])
    pairs = [(0, 2), (1, 2), (2, 0)]
    wide = margins(sum_MG, np.ones((1, 12)), pairs)
    cut = margins(sum_MG, np.ones((1, 12)), pairs, most=1.0)
    assert wide[0].low < -1 < wide[0].high and wide[2].high > 1
    assert (cut[0].low, cut[0].high) == (-1, wide[0].high) and (cut[2].low, cut[2].high) == (wide[2].low, 1)
    assert cut[1] == wide[1]
    assert [(each.value, each.p, each.is_clear) for each in cut] == [(e.value, e.p, e.is_clear) for e in wide]


def test_one_group_tells_nothing():
    assert margins(np.ones((2, 1)), np.ones((1, 1)), [(0, 1)]) == [] == margins(np.ones((2, 5)), np.ones((1, 5)), [])


points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(points)
def test_the_front_by_brute_force(found):
    front = pareto_front([cost for cost, _ in found], [worth for _, worth in found])

    def is_beaten(at):
        cost, worth = found[at]
        better = [
            (c <= cost and w >= worth and (c, w) != (cost, worth)) or ((c, w) == (cost, worth) and place < at)
            for place, (c, w) in enumerate(found)
        ]
        return any(better)

    assert sorted(front) == [at for at in range(len(found)) if not is_beaten(at)]
    assert [found[at][0] for at in front] == sorted(found[at][0] for at in front)


@pytest.mark.parametrize(
    ("low", "high", "clear"),
    [(0.01, 0.2, True), (-0.7, -0.01, True), (-0.7, -0.0004, False), (0.0, 0.3, False), (-0.1, 0.1, False)],
)
def test_an_interval_that_is_printed_with_a_0_at_its_end_is_no_clear_difference(low, high, clear):
    assert Margin((low + high) / 2, low, high, 20).is_clear == clear
