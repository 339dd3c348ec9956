"""STSBench's scores."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.stsbench import LABELS, STSBenchScore
from prune2drive.sample import Prediction


def row(number, answer, reference="A", kind="ego: Ego is turning", **more):
    return Prediction(f"q{number}", "?", answer, reference, kind=kind, **more)


KINDS = ("ego: a", "ego: b", "ego_agent: a", "agent: c", "agent_agent: d", "agent_agent: e")


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("ABc"), st.sampled_from("AC")), min_size=1))
def test_scenarios_and_groups_count_alike(cases):
    """By an independent reading: the mean over groups of the mean over scenarios of the share that is right."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for kind, answer, reference in cases:
        of = groups.setdefault(kind.split(": ")[0], {})
        of.setdefault(kind, []).append(answer.upper() == reference)
    expected = {group: fmean(fmean(right) for right in of.values()) for group, of in groups.items()}
    rows = [row(number, answer, reference, kind) for number, (kind, answer, reference) in enumerate(cases)]
    found = STSBenchScore()(rows)
    assert {group: found[f"accuracy/{group}"] for group in expected} == pytest.approx(expected)
    assert found["score"] == found["average_accuracy"] == pytest.approx(fmean(expected.values()))
    assert found["score_n"] == len(cases) == found["accuracy_n"]
    parts = STSBenchScore().parts_by_question(rows)
    assert {key: fmean(of.values()) for key, of in parts.items()} == pytest.approx({key: found[key] for key in parts})
    assert STSBenchScore().by_question(rows) == parts["accuracy"] and parts.keys() <= LABELS.keys()


def test_the_first_character_decides():
    answers = ["A", "a) turning", "Answer: B", "The answer is A.", " A", "", "B"]
    found = STSBenchScore().by_question([row(number, answer) for number, answer in enumerate(answers)])
    assert list(found.values()) == [1, 1, 1, 0, 0, 0, 0]
    lenient = STSBenchScore().parts_by_question([row(number, answer) for number, answer in enumerate(answers)])
    assert list(lenient["accuracy_lenient"].values()) == [1, 0, 0, 1, 1, 0, 0]


def test_the_error_of_a_mean_of_means():
    rows = [row(0, "A"), row(1, "B"), row(2, "B"), row(3, "A", kind="ego: b"), row(4, "A", kind="agent: b")]
    found = STSBenchScore()(rows)
    assert found["accuracy/ego"] == pytest.approx((1 / 3 + 1) / 2) and found["accuracy/ego_n"] == 4
    assert found["accuracy/ego_stderr"] == pytest.approx((1 / 3) / 2)
    assert found["score_stderr"] == pytest.approx((1 / 3) / 4)


def test_rows_that_cannot_be_scored_are_in_no_mean():
    rows = [row(0, "A"), row(1, None), row(2, "A", None), row(3, "A", error="x")]
    assert STSBenchScore()(rows)["score_n"] == 1
    assert STSBenchScore()(rows[1:]) == {} and STSBenchScore().caveat({}).startswith("no score")
