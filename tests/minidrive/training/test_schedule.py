import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.minidrive.training.schedule import GUIDES, STRETCHES, Schedule

SCENES, GUIDANCE = dict.fromkeys(STRETCHES, 2), dict.fromkeys(GUIDES, 1.0)
SCHEDULE = Schedule(4, 8, 4, SCENES, GUIDANCE, settling_rate=0.3, vision_share=0.5, warmup=2)


def test_three_stretches_each_flat_then_falling():
    stretches = [SCHEDULE.stretch(step) for step in range(SCHEDULE.steps)]
    assert stretches == ["naming"] * 4 + ["learning"] * 8 + ["settling"] * 4
    rates = [SCHEDULE.factor(step) for step in range(SCHEDULE.steps)]
    assert rates[:4] == pytest.approx([0.5, 1, 1, 0.51])
    assert rates[4:12] == pytest.approx([0.5, 1, 1, 1, 1, 0.825, 0.65, 0.475])  # warms up again
    assert rates[12:] == pytest.approx([0.3, 0.3, 0.3, 0.155])
    assert SCHEDULE.vision_factor(1) == 1 and SCHEDULE.vision_factor(12) == pytest.approx(0.15)


@given(st.tuples(*[st.integers(0, 30)] * 3), st.floats(0.01, 1), st.integers(1, 40))
def test_the_rate_is_never_zero_nor_above_one(steps, settling_rate, warmup):
    schedule = Schedule(*steps, SCENES, GUIDANCE, settling_rate=settling_rate, warmup=warmup)
    assert all(0 < schedule.factor(step) <= 1 for step in range(schedule.steps))


@pytest.mark.parametrize("scenes, guidance", [({"naming": 1}, GUIDANCE), (SCENES, {"subject": 1.0})])
def test_what_is_left_open_is_named(scenes, guidance):
    with pytest.raises(InputError, match="name each of"):
        Schedule(1, 1, 1, scenes, guidance)
