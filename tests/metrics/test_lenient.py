"""What counts as right where an answer need not be the reference to the letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.lenient import is_right, letter
from prune2drive.sample import Prediction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", "A"),
        (" (B) ", "B"),
        ("C.", "C"),
        ("A. The ego vehicle is steering to the left.", "A"),
        ("D) Going ahead", "D"),
        ("**B**: slowly", None),
        ("The correct answer is A. The ego vehicle is steering to the left.", "A"),
        ("The correct answer is A", "A"),
        ("the answer is: (C)", "C"),
        ("Answer: B", "B"),
        ("The correct option is **D**.", "D"),
        ("I choose option B because it is wet.", "B"),
        ("A. So the answer is A.", "A"),
        ("A. No, the answer is B.", None),
        ("The answer is A, or the answer is B.", None),
        ("The answer is A car.", None),
        ("A car is ahead.", None),
        ("The answer is a van", None),
        ("The answer is Back", None),
        ("Behind us.", None),
        ("", None),
    ],
)
def test_the_letter_that_a_text_chooses(text, expected):
    assert letter(text) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The correct answer is A", "A", True),
        ("The correct answer is B", "A", False),
        ("a", "A", False),
        ("Yes, two cars are ahead.", "Yes.", True),
        ("yes", "Yes.", True),
        ("No, though yes.", "Yes.", False),
        ("Nothing.", "No.", False),
        ("Going ahead", "Going ahead.", True),
        ("Going ahead now", "Going ahead.", False),
        ("", "", True),
    ],
)
def test_what_is_right(answer, reference, right):
    assert is_right(answer, reference) == right


@given(st.text("AB.) yesNo", max_size=6))
def test_the_reference_itself_is_right(text):
    assert is_right(text, text)


def test_it_enters_no_official_score():
    rows = [
        Prediction("s_f_0", "?", "The answer is A", "A", tags=(0,), scene="s", frame="f"),
        Prediction("s_f_1", "?", "B", "B", tags=(0,), scene="s", frame="f"),
    ]
    found = DriveLMScore()(rows)
    assert (found["accuracy"], found["accuracy_lenient"], found["score"]) == (0.5, 1, 0.5)
    assert found["accuracy_lenient_n"] == 2 and found["score_parts"] == 1
