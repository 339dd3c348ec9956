"""NuScenes-QA's exact match, by hand and by an independent count."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.nuscenes_qa import NuScenesQAScore
from prune2drive.sample import Prediction


def row(number, answer, reference="yes", kind="exist_0", **more):
    return Prediction(f"f_{number}", "?", answer, reference, kind=kind, **more)


def test_by_type_by_hops_and_by_both():
    rows = [
        row(0, "yes"),
        row(1, "no", kind="exist_1"),
        row(2, "2", "2", "count_1"),
        row(3, "with rider", "with rider", "status_0"),
        row(4, "Bus.", "bus", "object_0"),
    ]
    found = NuScenesQAScore()(rows)
    values = {key: value for key, value in found.items() if not key.endswith(("_n", "_stderr"))}
    assert values == {
        "accuracy": pytest.approx(3 / 5),
        "accuracy_lenient": pytest.approx(4 / 5),
        "accuracy/exist": 1 / 2,
        "accuracy/count": 1,
        "accuracy/object": 0,
        "accuracy/status": 1,
        "accuracy/hop_0": pytest.approx(2 / 3),
        "accuracy/hop_1": 1 / 2,
        "accuracy/exist_0": 1,
        "accuracy/exist_1": 0,
        "accuracy/count_1": 1,
        "accuracy/status_0": 1,
        "accuracy/object_0": 0,
        "score": pytest.approx(3 / 5),
    }
    assert (found["accuracy_n"], found["accuracy/hop_0_n"], found["accuracy/exist_1_n"]) == (5, 3, 1)
    assert found["score_stderr"] == found["accuracy_stderr"] == pytest.approx((0.6 * 0.4 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "lenient"),
    [
        ("yes", "yes", 1, 1),
        ("Yes.", "yes", 0, 1),
        (" yes", "yes", 0, 1),
        ("traffic  cone", "traffic cone", 0, 1),
        ("the bus", "bus", 0, 0),
        ("yes, two", "yes", 0, 0),
        ("", "yes", 0, 0),
        ("1", "10", 0, 0),
    ],
)
def test_what_counts_as_right(answer, reference, exact, lenient):
    found = NuScenesQAScore()([row(0, answer, reference)])
    assert (found["accuracy"], found["accuracy_lenient"]) == (exact, lenient)


answers = st.sampled_from(["yes", "no", "2", "car"])
kinds = st.tuples(st.sampled_from(["exist", "count", "new"]), st.integers(0, 2)).map(lambda at: f"{at[0]}_{at[1]}")


@given(st.lists(st.tuples(answers, answers, kinds), min_size=1, max_size=30))
def test_every_question_counts_once_in_each_table(cases):
    """An independent reading of the script: a list of 0 and 1 for all, for each type and for each type and hops."""
    lists = defaultdict(list)
    for answer, reference, kind in cases:
        template, hops = kind.split("_")
        for name in ("accuracy", f"accuracy/{template}", f"accuracy/{kind}", f"accuracy/hop_{hops}"):
            lists[name].append(1 if answer == reference else 0)
    rows = [row(number, *case) for number, case in enumerate(cases)]
    found, parts = NuScenesQAScore()(rows), NuScenesQAScore().parts_by_question(rows)
    for name, values in lists.items():
        assert found[name] == pytest.approx(sum(values) / len(values)) and found[f"{name}_n"] == len(values)
        assert sum(parts[name].values()) == sum(values) and len(parts[name]) == len(values)
    assert parts.keys() == lists.keys() | {"accuracy_lenient"}
    assert NuScenesQAScore().by_question(rows) == parts["accuracy"]


def test_rows_without_an_answer_are_in_no_mean():
    rows = [row(0, "yes"), row(1, None), row(2, "yes", None), row(3, "yes", error="out of memory")]
    assert NuScenesQAScore()(rows)["accuracy_n"] == 1
    found = NuScenesQAScore()(rows[1:])
    assert found == {} and NuScenesQAScore().caveat(found).startswith("no score")


def test_rows_of_another_dataset_have_no_types():
    assert not [key for key in NuScenesQAScore()([row(0, "yes", kind="perception")]) if "/" in key]
