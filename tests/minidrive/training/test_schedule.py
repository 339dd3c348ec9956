import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.minidrive.training.schedule import AUXILIARY_LOSSES, PHASES, Schedule

SCENES, LOSSES = dict.fromkeys(PHASES, 2), dict.fromkeys(AUXILIARY_LOSSES, 1.0)
SCHEDULE = Schedule(4, 8, 4, SCENES, LOSSES, fine_tuning_rate=0.3, vision_share=0.5, warmup=2)


def test_factor_of_a_phase_is_constant_then_falls():
    phases = [SCHEDULE.phase(step) for step in range(SCHEDULE.steps)]
    assert phases == ["token_supervision"] * 4 + ["answer_training"] * 8 + ["fine_tuning"] * 4
    rates = [SCHEDULE.factor(step) for step in range(SCHEDULE.steps)]
    assert rates[:4] == pytest.approx([0.5, 1, 1, 0.51])
    assert rates[4:12] == pytest.approx([0.5, 1, 1, 1, 1, 0.825, 0.65, 0.475])  # warms up again
    assert rates[12:] == pytest.approx([0.3, 0.3, 0.3, 0.155])
    assert SCHEDULE.vision_factor(1) == 1 and SCHEDULE.vision_factor(12) == pytest.approx(0.15)


@given(st.tuples(*[st.integers(0, 30)] * 3), st.floats(0.01, 1), st.integers(1, 40))
def test_factor_is_never_zero_nor_above_one(steps, fine_tuning_rate, warmup):
    schedule = Schedule(*steps, SCENES, LOSSES, fine_tuning_rate=fine_tuning_rate, warmup=warmup)
    assert all(0 < schedule.factor(step) <= 1 for step in range(schedule.steps))


@pytest.mark.parametrize("scenes, losses", [({"token_supervision": 1}, LOSSES), (SCENES, {"subject": 1.0})])
def test_schedule_refuses_an_incomplete_setting(scenes, losses):
    with pytest.raises(InputError, match="schedule.(scenes|auxiliary_losses): set "):
        Schedule(1, 1, 1, scenes, losses)


def test_phases_and_warmups_can_be_left_out():
    """The schedule is asked for the step after the last one, too."""
    assert Schedule(2, 2, 0, SCENES, LOSSES).factor(4) > 0
    assert Schedule(0, 2, 0, SCENES, LOSSES, warmup=0).factor(0) == 1
