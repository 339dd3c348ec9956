"""GoldenViewVQA's scores, and the golden view's share of a budget."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.goldenview import BUDGETS, SCORES, VIEWS, GoldenViewScore, named
from prune2drive.sample import Prediction


def row(number, answer, reference="CAM_FRONT A", **more):
    return Prediction(f"q{number}", "?", answer, reference, **more)


@pytest.mark.parametrize(
    ("text", "view", "letter"),
    [
        ("CAM_FRONT A", "CAM_FRONT", "A"),
        ("CAM_FRONT_LEFT B", "CAM_FRONT_LEFT", "B"),
        ("B, cam_back", "CAM_BACK", "B"),
        ("View: NONE_OF_THE_ABOVE\nAnswer: C", "NONE_OF_THE_ABOVE", "C"),
        ('{"predicted_view": "CAM_BACK_RIGHT", "answer": "D"}', "CAM_BACK_RIGHT", "D"),
        ("CAM_FRONT, A. The lane is blocked in CAM_FRONT.", "CAM_FRONT", "A"),
        ("CAM_FRONT, CAM_BACK, A.", None, "A"),
        ("CAM_FRONT", "CAM_FRONT", None),
        ("A", None, "A"),
        ("front A", None, None),
        ("", None, None),
    ],
)
def test_what_an_answer_names(text, view, letter):
    assert named(text) == (view, letter)


def test_scores_by_hand():
    rows = [
        row(0, "CAM_FRONT A"),
        row(1, "CAM_FRONT B"),
        row(2, "CAM_BACK A"),
        row(3, "dunno"),
        row(4, "CAM_BACK C", "CAM_BACK C"),
    ]
    found = GoldenViewScore()(rows)
    assert {key: found[key] for key in SCORES} == pytest.approx(
        {"joint_accuracy": 0.4, "answer_accuracy": 0.6, "view_accuracy": 0.6, "view_macro_accuracy": 0.75}
    )
    assert found["score"] == found["joint_accuracy"] and found["unread"] == 1
    assert found["score_n"] == found["view_macro_accuracy_n"] == 5
    assert found["view_macro_accuracy_stderr"] == pytest.approx((0.5 * 0.5 / 3) ** 0.5 / 2)
    assert not found.keys() & BUDGETS


pairs = st.tuples(st.sampled_from(VIEWS), st.sampled_from("ABCD"))


@given(st.lists(st.tuples(pairs, pairs), min_size=1, max_size=20))
def test_scores_by_an_independent_reading(cases):
    """Counts as the benchmark's evaluator does: whole pairs, views, letters, and the recall of each golden view."""
    recalls = defaultdict(list)
    for answer, reference in cases:
        recalls[reference[0]].append(answer[0] == reference[0])
    expected = {
        "joint_accuracy": sum(answer == reference for answer, reference in cases) / len(cases),
        "view_accuracy": sum(answer[0] == reference[0] for answer, reference in cases) / len(cases),
        "answer_accuracy": sum(answer[1] == reference[1] for answer, reference in cases) / len(cases),
        "view_macro_accuracy": sum(sum(each) / len(each) for each in recalls.values()) / len(recalls),
    }
    rows = [row(number, " ".join(answer), " ".join(reference)) for number, (answer, reference) in enumerate(cases)]
    found, parts = GoldenViewScore()(rows), GoldenViewScore().parts_by_question(rows)
    assert {key: found[key] for key in expected} == pytest.approx(expected) and found["unread"] == 0
    assert parts.keys() == expected.keys() - {"view_macro_accuracy"}
    assert {key: sum(each.values()) / len(each) for key, each in parts.items()} == pytest.approx(
        {key: found[key] for key in parts}
    )
    assert GoldenViewScore().by_question(rows) == parts["joint_accuracy"]


def test_the_golden_views_share_of_the_budget():
    full = {"CAM_FRONT": 100, "CAM_BACK": 100, "CAM_BACK_LEFT": 200}
    rows = [
        row(0, "CAM_FRONT A", kept_counts={"CAM_FRONT": 30, "CAM_BACK": 10, "CAM_BACK_LEFT": 20}, full_counts=full),
        row(1, "x", "CAM_BACK A", kept_counts={"CAM_FRONT": 30, "CAM_BACK": 10, "CAM_BACK_LEFT": 0}, full_counts=full),
        row(2, "x", "NONE_OF_THE_ABOVE A", kept_counts={"CAM_FRONT": 30, "CAM_BACK": 10}, full_counts=full),
        row(3, "x", "CAM_BACK_RIGHT A", kept_counts={"CAM_FRONT": 30, "CAM_BACK": 10}, full_counts=full),
        row(4, "x", "CAM_FRONT A", kept_counts={"CAM_FRONT": 30}, full_counts={"CAM_FRONT": 100}),
    ]
    found, parts = GoldenViewScore()(rows), GoldenViewScore().parts_by_question(rows)
    assert {key: found[key] for key in BUDGETS} == pytest.approx(
        {
            "golden/budget_share": (30 / 60 + 10 / 40) / 2,
            "golden/even_share": 1 / 4,
            "golden/kept": 20,
            "golden/others_kept": (15 + 15) / 2,
        }
    )
    assert found["golden/budget_share_n"] == 2 and found["score_n"] == 5
    assert parts["golden/kept"] == {"q0": 30, "q1": 10}


def test_rows_that_cannot_be_scored_are_in_no_mean():
    rows = [row(0, "CAM_FRONT A"), row(1, None), row(2, "A", None), row(3, "A", error="x"), row(4, "A", "A van.")]
    assert GoldenViewScore()(rows)["score_n"] == 1
    assert GoldenViewScore()(rows[1:]) == {} and GoldenViewScore().caveat({}).startswith("no score")
    assert GoldenViewScore().unscorable_reason(rows[4]) and not GoldenViewScore().unscorable_reason(rows[0])


def test_columns():
    columns = GoldenViewScore.columns
    assert next(iter(columns)) == "score" and columns["golden/budget_share"].in_comparison
    assert {*SCORES, *BUDGETS} == columns.keys() - {"score"}
