import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.intervals import Interval, difference, interval, mean_interval, share_interval
from prune2drive.metrics.statistics import RatioOfSums, RunningMean, combine, jackknife, mean

pytestmark = pytest.mark.slow  # many random samples

VALUES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)


@given(VALUES, st.integers(1, 7))
def test_the_mean_lies_in_its_interval_and_the_interval_in_the_range(values, groups):
    found = interval(dict(enumerate(values)), {n: n % groups for n in range(len(values))})
    assert found.value == pytest.approx(np.mean(values)) and found.n == len(values)
    assert min(values) <= found.low <= found.high <= max(values)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9 or groups > 1


def test_as_wide_as_the_normal_interval_where_questions_are_independent():
    values = dict(enumerate(np.random.default_rng(1).random(500) < 0.3))
    found = interval(values, {n: n for n in values})
    half = 1.96 * np.std(list(values.values())) / np.sqrt(500)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)


def test_wider_where_a_frames_questions_agree():
    frames = np.random.default_rng(1).random(50) < 0.5
    values = {(frame, n): float(right) for frame, right in enumerate(frames) for n in range(10)}
    alone = interval(values, {question: question for question in values})
    shared = interval(values, {question: question[0] for question in values})
    assert (shared.high - shared.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(10), rel=0.1)


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(2)
    theirs = {n: float(hard) for n, hard in enumerate(rng.random(400) < 0.5)}
    ours = {n: 1.0 if n < 20 else value for n, value in theirs.items()}  # better in about ten of 400
    paired = difference(ours, theirs, {n: n for n in theirs})
    assert paired.low > 0 and paired.value == pytest.approx(np.mean([ours[n] - theirs[n] for n in ours]))
    unpaired = [interval(each, {n: n for n in each}) for each in (ours, theirs)]
    assert unpaired[0].low < unpaired[1].high
    same = difference(theirs, theirs, {n: n for n in theirs})
    assert same.low <= 0 <= same.high


def test_only_what_both_answered_counts():
    assert difference({1: 1.0, 2: 0.0}, {2: 1.0, 3: 0.0}, {1: 0, 2: 0, 3: 0}).n == 1
    with pytest.raises(ValueError, match="no values"):
        difference({1: 1.0}, {2: 1.0}, {1: 0, 2: 0})


def test_an_interval_is_formatted_as_value_and_ends():
    assert f"{share_interval(0.9, 0.1):.3f}" == "0.900 [0.704, 1.000]"
    assert f"{share_interval(0.05, 0.1):.3f}" == "0.050 [0.000, 0.246]"
    assert f"{Interval(0.5, -0.25, 1.0, 3):+.2f}" == "+0.50 [-0.25, +1.00]"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_running_mean_equals_the_textbooks(values):
    running = RunningMean()
    for value in values:
        running.add(value)
    table = running.flat("a")
    stderr = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0
    assert table["a_n"] == len(values)
    assert table["a"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert table["a_stderr"] == pytest.approx(stderr, abs=1e-5)


def test_ratio_of_sums_counts_groups_in_its_standard_error():
    ratio = RatioOfSums()
    for group, above, below in [("a", 1, 2), ("b", 3, 4), ("a", 1, 2)]:
        ratio.add(group, above, below)
    spread = (2 - 5 / 8 * 4) ** 2 + (3 - 5 / 8 * 4) ** 2
    assert ratio.flat("x") == {"x": 5 / 8, "x_n": 8, "x_stderr": pytest.approx(math.sqrt(spread * 2) / 8)}
    assert ratio.groups == 2


def test_groups_that_come_back_are_one_however_often_entries_are_joined():
    ratio, other = RatioOfSums(), RatioOfSums()
    ratio._most = 3
    for number in range(40):
        ratio.add(f"{number % 5}", number, 2)
    for group in range(5):
        for number in range(group, 40, 5):
            other.add(f"{group}", number, 2)
    assert ratio.groups == 5 and ratio.flat("x") == other.flat("x")


def test_ratio_of_sums_of_one_group_has_no_standard_error():
    ratio = RatioOfSums()
    ratio.add("a", 1, 4)
    assert ratio.flat("x") == {"x": 0.25, "x_n": 4, "x_stderr": 0}


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_jackknife_of_a_mean_is_the_usual_standard_error(numbers):
    found = mean(numbers, range(len(numbers))).flat("x")
    assert found == pytest.approx(
        {"x": np.mean(numbers), "x_n": len(numbers), "x_stderr": np.std(numbers, ddof=1) / math.sqrt(len(numbers))},
        abs=1e-9,
    )


def test_the_standard_error_of_one_sample_is_zero():
    assert mean([0.3], [0]).flat("x") == {"x": 0.3, "x_n": 1, "x_stderr": 0}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
def test_combined_estimates_keep_the_covariance_of_shared_samples(numbers):
    rows = range(len(numbers))
    parts = {key: mean(column, rows) for key, column in zip("ab", zip(*numbers, strict=True), strict=True)}
    whole = mean([0.4 * a + 0.6 * b for a, b in numbers], rows).flat("x")
    assert combine(parts, {"a": 0.4, "b": 0.6}).flat("x") == pytest.approx(whole, abs=1e-9)


def test_estimates_of_different_samples_add_in_quadrature():
    parts = {"a": mean([0, 1, 1], [0, 1, 2]), "b": mean([0, 0.5], [5, 6])}
    errors = [part.flat("x")["x_stderr"] for part in parts.values()]
    found = combine(parts, {"a": 1, "b": 1}).flat("x")
    assert found["x_n"] == 5
    assert found["x_stderr"] == pytest.approx(math.hypot(*errors))


def test_jackknife_of_a_nonlinear_statistic():
    numbers = np.array([1.0, 2.0, 6.0])
    without = np.array([np.prod(np.delete(numbers, n)) for n in range(3)])
    expected = math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert jackknife(12.0, without, range(3)).flat("x")["x_stderr"] == pytest.approx(expected)


def test_many_groups_have_the_normal_interval_which_is_nearly_the_bootstraps(monkeypatch):
    drawn = np.random.default_rng(0)
    values = dict(enumerate(drawn.integers(0, 2, 900).astype(float).tolist()))
    groups = dict(enumerate(drawn.integers(0, 300, 900).tolist()))
    expected = interval(values, groups)
    monkeypatch.setattr("prune2drive.metrics.intervals.MANY", 10)
    found = interval(values, groups)
    assert (found.value, found.n) == (expected.value, expected.n)
    assert found.low == pytest.approx(expected.low, abs=0.003) and found.high == pytest.approx(expected.high, abs=0.003)
    hardly_any = interval({n: -float(n > 0) for n in values}, groups)
    assert hardly_any.low == -1 < hardly_any.value < hardly_any.high, "no mean of values lies below all of them"


@pytest.mark.parametrize(("n", "quantile"), [(4, 3.1824), (5, 2.7764), (8, 2.3646), (1000, 1.9623)])
def test_the_interval_of_a_few_measurements_is_students(n, quantile):
    found = mean_interval(30.0, 2.0, n)
    assert found.high - 30 == pytest.approx(2 * quantile, rel=0.01) == 30 - found.low
    assert mean_interval(30.0, 0.0, 1) == Interval(30.0, 30.0, 30.0, 1)
