"""Scores by question, which comparisons pair, add up to the metrics they are part of."""

import pytest

from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.drivelmm_o1 import DriveLMMo1Score
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.sample import Prediction


def row(number, answer, reference, *tags):
    return Prediction(f"s_f_{number}", "What?", answer, reference, tags=tags, scene="s", frame="f")


CAR, VAN = "<c1,CAM_BACK,1088.3,497.5>", "<c2,CAM_FRONT,864.2,468.3>"


def test_exact_match():
    rows = [row(0, "Yes.", "Yes."), row(1, "No.", "Yes."), row(2, None, "Yes."), row(3, "Yes.", None)]
    assert ExactMatch().by_question(rows) == {"s_f_0": 1, "s_f_1": 0}
    assert ExactMatch()(rows[:2])["exact_match"] == 0.5
    assert ExactMatch().parts_by_question(rows)["exact_match"] == {"s_f_0": 1, "s_f_1": 0}


def test_drivelm_leaves_captions_out():
    rows = [
        row(0, f"{CAR}", f"{CAR} and {VAN}", 3),
        row(1, "B", "B", 0),
        row(2, "A", "B", 0),
        row(3, "A van.", "A van.", 2),
    ]
    found, metrics = DriveLMScore().by_question(rows), DriveLMScore()(rows[:3])
    assert found["s_f_0"] == pytest.approx(metrics["match_f1"]) and 0 < found["s_f_0"] < 1
    assert (found["s_f_1"] + found["s_f_2"]) / 2 == metrics["accuracy"] and len(found) == 3
    parts = DriveLMScore().parts_by_question(rows)
    assert {key: sum(each.values()) / len(each) for key, each in parts.items()} == pytest.approx(
        {key: metrics[key] for key in ("accuracy", "accuracy_lenient", "match_f1")}
    )


def test_the_lenient_accuracy_is_by_question_too():
    rows = [row(0, "The correct answer is A", "A", 0), row(1, "B", "B", 0), row(2, "The answer is A", "B", 0)]
    parts = DriveLMScore().parts_by_question(rows)
    assert parts["accuracy"] == {"s_f_0": 0, "s_f_1": 1, "s_f_2": 0}
    assert parts["accuracy_lenient"] == {"s_f_0": 1, "s_f_1": 1, "s_f_2": 0}


def test_drivelmm_o1_leaves_open_questions_out():
    rows = [row(2, "Final Answer: A) x", "A) x"), row(3, "Final Answer: B) x", "A) x"), row(1, "x", "x")]
    found = DriveLMMo1Score().by_question(rows)
    metrics = DriveLMMo1Score()(rows)
    assert DriveLMMo1Score().parts_by_question(rows) == {"mcq_accuracy": found}
    assert sum(found.values()) / len(found) == metrics["mcq_accuracy"] and len(found) == metrics["mcq_accuracy_n"] == 2
