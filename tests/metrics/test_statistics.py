import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.statistics import Interval, difference, interval, share_interval

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
