"""Which answers the challenge scores: those about objects that the frame's first answer found."""

from collections import Counter

import pytest
from helpers.drivelm_rows import BUS, CAR, VAN, row

from prune2drive.metrics.drivelm.graph import follow_graph


def ids(rows):
    return [pair.row.id for pair in follow_graph(rows)]


def test_the_graph_holds_the_reference_coordinates_that_the_first_answer_finds():
    first = row(
        0, answer=f"{CAR} <c2,CAM_FRONT,866.0,470.0> <c3,CAM_FRONT,1.0,2.0>", reference=f"{CAR} {VAN} {BUS}", tags=[2]
    )
    rows = [
        first,
        row(1, f"Is {VAN} red?"),
        row(2, f"Is {BUS} red?"),
        row(3, f"{CAR} or {BUS}?"),
        row(4),
        row(5, f"{CAR} {VAN}"),
    ]
    assert ids(rows) == ["s_f_0", "s_f_1", "s_f_4", "s_f_5"]
    list(follow_graph(rows, counts := Counter()))
    assert counts == {"skipped_by_graph": 2, "frames_without_graph": 0}


def test_the_graph_compares_numbers_not_spellings():
    assert ids([row(0, answer=CAR, reference=CAR), row(1, "Is <c1,CAM_BACK,1088.30,497.50> red?")]) == [
        "s_f_0",
        "s_f_1",
    ]


def test_the_first_question_is_scored_whatever_it_names():
    assert ids([row(0, f"Is {CAR} red?", answer="No.")]) == ["s_f_0"]


def test_an_untagged_first_question_sets_the_graph_and_is_not_scored():
    assert ids([row(0, answer=CAR, reference=f"{CAR} {VAN}", tags=[]), row(1, CAR), row(2, VAN)]) == ["s_f_1"]


def test_order_within_a_frame_is_by_number_and_frames_keep_theirs():
    rows = [row(n, frame=frame) for frame, n in [("b", 10), ("a", 1), ("b", 2), ("a", 0), ("b", 0)]]
    assert ids(rows) == ["s_b_0", "s_b_2", "s_b_10", "s_a_0", "s_a_1"]


@pytest.mark.parametrize(
    "first", [[], [row(0, answer=None)], [row(0, error="out of memory")], [row(0, reference=None)]]
)
def test_without_its_first_answer_a_frame_has_no_graph_and_is_scored_whole(first):
    scored = list(follow_graph([*first, row(1, f"Is {CAR} red?"), row(2)], counts := Counter()))
    assert [pair.row.id for pair in scored] == ["s_f_1", "s_f_2"]
    assert counts == {"skipped_by_graph": 0, "frames_without_graph": 1}


def test_an_odd_number_in_a_question_is_dropped():
    assert ids([row(0, answer=CAR, reference=CAR), row(1, f"Is {CAR} within 5.5 m?")]) == ["s_f_0", "s_f_1"]


def test_questions_of_a_frame_that_lie_apart_are_scored_together():
    first, second = row(0, answer=CAR, reference=CAR), row(1, f"Is {VAN} red?")
    other = row(0, frame="g", answer=CAR, reference=CAR)
    assert ids([first, other, second]) == ids([first, second, other]) == ["s_f_0", "s_g_0"]
