import hashlib
import re

import pytest
from helpers.chat_server import serving
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.metrics.base import Rubric
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.drivelm.rating import RATING, parse_rating
from prune2drive.metrics.drivelm.score import FINAL_WEIGHTS
from prune2drive.metrics.judge.chat import ChatJudge
from prune2drive.metrics.language import LANGUAGE_WEIGHTS
from prune2drive.metrics.statistics import Estimate, combine
from prune2drive.sample import Prediction

ROWS = [
    Prediction("s_f_0", "What?", "A car.", "A red car.", tags=(2,), scene="s", frame="f"),
    Prediction("s_f_1", "And then?", "Brake.", "Stop.", tags=(1,), scene="s", frame="f"),
    Prediction("s_f_2", "Why?", "Ice.", "Snow.", tags=(1,), scene="s", frame="f"),
    Prediction("s_f_3", "Where?", "<c,X,1.0,1.0>", "<c,X,2.0,2.0>", tags=(3,), scene="s", frame="f"),
    Prediction("s_f_4", "Which?", "A", "A", tags=(0,), scene="s", frame="f"),
]


@pytest.fixture
def server():
    with serving() as found:
        yield found


@pytest.fixture
def judge(server, tmp_path):
    def build(**settings):
        return ChatJudge(server.url, "m", cache=str(tmp_path / "cache"), **{"retries": 0, **settings})

    return build


def asked(server):
    return [request["messages"][-1]["content"] for request in server.requests]


@pytest.mark.parametrize(
    "reply, rating",
    [
        ("62", 0.62),
        (" 78.5\n", 0.785),
        ("0", 0),
        ("100", 1),
        ("Score: 41", 0.41),
        ("**85**/100", 0.85),
        ("I would say 85 out of 100.", 0.85),
        ("<think>5 cars of 7</think>\n64", 0.64),
        ("", None),
        ("very good", None),
        ("101", None),
        ("-5", None),
        ("between 60 and 70", None),
    ],
)
def test_what_a_reply_says(reply, rating):
    assert parse_rating(reply) == (pytest.approx(rating) if rating is not None else None)


@given(st.decimals(0, 100, places=1))
def test_every_rating_is_read(number):
    assert parse_rating(f"Rating: {number}") == pytest.approx(float(number) / 100)


def test_drivelms_rating_makes_the_official_score(server, judge):
    server.answer = lambda text: {"Brake.": "90", "Ice.": "30", "<c,X,1.0,1.0>": "50"}[text.splitlines()[-1][8:]]
    found = DriveLMScore(judge())(ROWS)
    assert (found["judge"], found["judge_n"], found["judge_unparsed"]) == (pytest.approx(0.6), 2, 0)
    assert found["match"] == pytest.approx((1 + 0.5) / 2)
    assert found["score"] == found["final"] == pytest.approx(0.4 * 0.6 + 0.2 * (found["language"] + 0.75 + 1))
    assert len(server.requests) == 3
    assert all("from 0 to 100" in text and "the number and nothing else" in text for text in asked(server))


def test_unparsed_replies_are_counted_and_never_zero(server, judge):
    server.answer = lambda text: "none" if "Ice." in text else "80"
    found = DriveLMScore(judge())(ROWS)
    assert (found["judge"], found["judge_n"], found["judge_unparsed"]) == (0.8, 1, 1)


def test_a_dead_endpoint_leaves_the_other_metrics_and_no_judged_one(server, judge, caplog):
    server.misbehave = lambda number, request: None if number == 1 else lambda handler: handler.reply(500, {})
    found = DriveLMScore(judge(concurrency=1))(ROWS)
    assert (found["judge_missing"], found["judge_asked"]) == (2, 3)
    whole = DriveLMScore()(ROWS)
    assert found == {k: v for k, v in whole.items() if not k.startswith("score")} | {
        "judge_missing": 2,
        "judge_asked": 3,
    }
    assert "the judge stopped answering: Error code: 500" in caplog.text


# The prompt


def test_a_prompt_file_takes_the_place_of_the_prompt(server, judge, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text('Q {question} R {reference} A {answer}. Say {"score": 1} or {} or { answer }.')
    found = DriveLMScore(judge(prompt_file=str(file)))(ROWS)
    assert found["judge"] == 0.7
    expected = 'Q And then? R Stop. A Brake.. Say {"score": 1} or {} or { answer }.'
    assert expected in asked(server)


def test_texts_are_filled_in_once():
    seen = {}
    judge = ChatJudge.__new__(ChatJudge)
    object.__setattr__(judge, "prompt_file", None)
    object.__setattr__(judge, "ask", lambda questions, parse: seen.update(questions))
    row = Prediction("a", "{answer}", "{reference}", "{question}")
    rubric = Rubric("{question} {reference} {answer}", parse_rating, lambda row: row.reference)
    judge([row], rubric)
    assert seen == {"a": "{answer} {question} {reference}"}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read .*No such file"),
        (b"\xff\xfe", "cannot be read"),
        (
            "{reference} {answer} {prediction}",
            r"unknown placeholder \{prediction\}; there are \{question\}",
        ),
        ("{reference}", r"the placeholder \{answer\} is missing"),
        ("{answer} {question}", r"the placeholder \{reference\} is missing"),
    ],
)
def test_a_prompt_file_that_cannot_be_used(content, message, judge, tmp_path):
    file = tmp_path / "prompt.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"judge.prompt_file={re.escape(str(file))}: {message}"):
        _ = DriveLMScore(judge(prompt_file=str(file))).judge_id


def test_the_identity_is_what_scores_depend_on(server, judge, tmp_path):
    first = judge().identity(RATING)
    assert first == {
        "base_url": server.url,
        "model": "m",
        "sampling": {"temperature": 0, "max_tokens": 512},
        "prompt_sha256": hashlib.sha256(RATING.prompt.encode()).hexdigest(),
    }
    assert judge(concurrency=2, retries=9, timeout=3, api_key_env=None).identity(RATING) == first
    (tmp_path / "prompt.txt").write_text("{reference} {answer}")
    for change in ({"sampling": {"temperature": 1}}, {"prompt_file": str(tmp_path / "prompt.txt")}):
        assert judge(**change).identity(RATING) != first


# The published formula: what the challenge's server gave (OpenDriveLab/DriveLM#88), and what its README says

PUBLISHED = [
    (
        (0.6563218390804598, 52.304035874439464, 33.8955710955711),
        (0.7290411998613902, 0.6639121354657584, 0.6015739286561763, 0.540482940279753),
        (0.7144301423026727, 0.10061532435610071),
        0.4988212685585955,
    ),
    (
        (0.0, 67.7535896248263, 18.83),
        (0.2382764794460423, 0.09954243471154352, 0.03670697545241351, 0.011298629095627342),
        (0.1992858115225957, 0.0074352082312374385),
        0.32843094354141145,
    ),
]


@pytest.mark.parametrize("scores, bleu, rest, final", PUBLISHED)
def test_final_is_the_published_formula(scores, bleu, rest, final):
    accuracy, rating, match = scores
    captions = {f"bleu_{n}": value for n, value in enumerate(bleu, start=1)}
    captions |= dict(zip(("rouge_l", "cider"), rest, strict=True))
    language = combine({key: Estimate(value) for key, value in captions.items()}, LANGUAGE_WEIGHTS)
    parts = {"accuracy": accuracy, "judge": rating / 100, "match": match / 100}
    parts_of = {key: Estimate(value) for key, value in parts.items()} | {"language": language}
    assert combine(parts_of, FINAL_WEIGHTS).value == pytest.approx(final, abs=1e-5)
