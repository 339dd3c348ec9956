import json
import re

import pytest
from helpers.chat_server import serving, status
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics.drivelm.rating import RATING
from prune2drive.metrics.drivelmm_o1 import CRITERIA, MARKS, DriveLMMo1Score, final_answer, option, parse_marks
from prune2drive.metrics.judge.chat import ChatJudge
from prune2drive.sample import Prediction

TITLES = [title for title, _ in CRITERIA.values()]
PUBLISHED = ("risk_assessment", "traffic_rules", "scene_awareness", "relevance", "missing_details", "overall")


def row(number=2, answer="Final Answer: B) A van", reference="B) A van", **more):
    return Prediction(f"scene_frame_{number}", "Which one?", answer, reference, **more)


def reply(marks=range(1, 11), **changes):
    marks = list(marks)
    content = {title: marks[place % len(marks)] for place, title in enumerate(TITLES)}
    return json.dumps({key: value for key, value in {**content, **changes}.items() if value is not None})


@pytest.fixture
def server():
    with serving() as found:
        found.answer = lambda text: reply()
        yield found


@pytest.fixture
def judge(server, tmp_path):
    return ChatJudge(server.url, "m", cache=str(tmp_path), retries=0, concurrency=1)


# Multiple choice


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Reasoning... **Final Answer:** B) A van", " B) A van"),
        ("Final Answer: A) x. Final Answer: C) y", ": C) y"),
        ("The final answer is: C) Answer", " C) Answer"),
        ("Answer A) first. **Final Decision**: D) last", " A) first. **Final Decision**: D) last"),
        ("Why take this action?: because. Final Step: E) stop", " because. Final Step: E) stop"),
        ("**Final Decision**: D) go", " D) go"),
        ("Final Step: E) stop", " E) stop"),
        ("<CONCLUSION>F) none", "F) none"),
        ("B) A van", ""),
        ("final answer: B)", ""),
        ("", ""),
    ],
)
def test_what_follows_the_last_of_the_first_marker(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    "text, expected",
    [
        ("B) A van", "B"),
        ("the answer is C)  the bus, not D) the car", "C"),
        ("E)\nThe road", "E"),
        ("A)", None),
        ("G) x", None),
        ("b) x", None),
        ("B. A van", None),
        ("None of the options.", "F"),
        ("A) None of the above", "A"),
        ("", None),
    ],
)
def test_the_option_of_a_text(text, expected):
    assert option(text) == expected


def slow_option(text):
    """The rule read anew: a capital A to F and a bracket, with more after them than ends of lines."""
    for found in re.finditer(r"[A-F]\)", text):
        if text[found.end() :].strip("\n"):
            return found[0][0]
    return "F" if "none of the " in text.lower() else None


@given(st.text("AF) \nnx", max_size=8) | st.sampled_from(["none of the A", "None Of The B) c"]))
def test_options_by_an_independent_reading(text):
    assert option(text) == slow_option(text)


def test_only_some_questions_have_options():
    rows = [row(n, answer="Final Answer: A) x") for n in range(1, 12)] + [Prediction("noname", "?", "x", "y")]
    found = DriveLMMo1Score()(rows)
    assert (found["mcq_accuracy"], found["mcq_accuracy_n"]) == (0, 5)
    right = DriveLMMo1Score()([*rows, *(row(n) for n in (2, 12, 3, 23))])
    assert (right["mcq_accuracy"], right["mcq_accuracy_n"]) == (pytest.approx(2 / 7), 7)


@pytest.mark.parametrize(
    "answer, reference, right",
    [
        ("Final Answer: B) A van", "B) A van", 1),
        ("Final Answer: B) A lorry", "B) A van", 1),
        ("Final Answer: A) A van", "B) A van", 0),
        ("B) A van", "B) A van", 0),
        ("I do not know", "Keep going", 1),
        ("Final Answer: none of the options", "F) None", 1),
    ],
)
def test_the_option_decides(answer, reference, right):
    assert DriveLMMo1Score()([row(answer=answer, reference=reference)])["mcq_accuracy"] == right


def test_without_a_judge_the_accuracy_is_the_score_and_no_rubric_is_there():
    found = DriveLMMo1Score()([row(), row(3, answer="no")])
    assert found["score"] == found["mcq_accuracy"] == 0.5
    assert found.keys() == {f"{key}{end}" for key in ("score", "mcq_accuracy") for end in ("", "_n", "_stderr")}


def test_rows_without_an_answer_are_in_no_mean():
    rows = [row(), row(3, answer=None), row(4, reference=None), row(5, error="out of memory")]
    assert DriveLMMo1Score()(rows)["mcq_accuracy_n"] == 1
    assert DriveLMMo1Score()(rows[1:]) == {}
    assert "score" not in DriveLMMo1Score()([row(1)])


# The rubric


def test_marks_become_shares(server, judge):
    found = DriveLMMo1Score(judge)([row(1), row(2)])
    assert {f"rubric/{name}" for name in PUBLISHED} <= found.keys()
    marks = [10 * found[f"rubric/{name}"] for name in CRITERIA]
    assert marks == pytest.approx([*range(1, 11), 1, 2])
    assert found["score"] == found["rubric/overall"] == pytest.approx(sum(marks) / 120)
    assert found["rubric/overall_n"] == found["score_n"] == 2
    assert found["mcq_accuracy"] == 1 and found["judge_unparsed"] == 0


def test_the_judge_sees_everything(server, judge):
    answer = "Reasoning Steps: it is wet. Final Answer: B) A van"
    DriveLMMo1Score(judge)([row(answer=answer, steps=("It rains.", "A van is near."))])
    (request,) = server.requests
    text = request["messages"][-1]["content"]
    assert all(part in text for part in ("Which one?", "It rains. A van is near.", "B) A van", answer, *TITLES))
    assert "from 1 to 10" in text and "JSON" in text


@pytest.mark.parametrize(
    "text",
    [
        reply([5]),
        f"Here you are:\n```json\n{reply([5])}\n```",
        reply([5.0], **{"Overall Score": 9}),
        reply([5], **{"Commonsense Reasoning": None, "Commonsense": 5}),
        reply(["5"]),
    ],
)
def test_forms_of_a_reply(text):
    assert parse_marks(text) == dict.fromkeys(CRITERIA, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "{",
        "{}",
        "[5]",
        reply([5])[:-20],
        reply([5], Relevance=None),
        reply([5], Relevance=11),
        reply([5], Relevance=0),
        reply([5], Relevance="high"),
        reply([5]).replace('"Relevance": 5', '"Relevance": NaN'),
    ],
)
def test_replies_that_say_too_little(text):
    assert parse_marks(text) is None


def test_unparsed_replies_are_counted_and_in_no_mean(server, judge):
    server.answer = lambda text: reply([8]) if "A van" in text else "hm"
    found = DriveLMMo1Score(judge)([row(), row(1, answer="?", reference="!")])
    assert (found["rubric/overall"], found["rubric/overall_n"], found["judge_unparsed"]) == (pytest.approx(0.8), 1, 1)


def test_a_dead_endpoint_leaves_the_accuracy_and_no_score(server, judge):
    server.misbehave = lambda number, request: None if number == 1 else status(500)
    found = DriveLMMo1Score(judge)([row(2), row(3, answer="x"), row(4, answer="y")])
    assert found["mcq_accuracy"] == pytest.approx(1 / 3) and found["judge_missing"] == 2 and found["judge_asked"] == 3
    assert not [key for key in found if key.startswith(("rubric", "score"))]


def test_the_identity_is_of_this_rubric(judge):
    assert DriveLMMo1Score(judge).judge_id == judge.identity(MARKS) != judge.identity(RATING)
    assert DriveLMMo1Score().judge_id is None
