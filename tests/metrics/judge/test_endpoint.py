"""The client against a server on loopback, over real HTTP."""

import multiprocessing
import os
import signal
import sqlite3
import threading
from collections import Counter

import openai._base_client
import pytest
from helpers.chat_server import KEY, body, drop, says, serving, status

from prune2drive.errors import InputError
from prune2drive.metrics.base import JudgeUnavailable
from prune2drive.metrics.judge.endpoint import Endpoint
from prune2drive.metrics.judge.response_cache import ResponseCache

pytestmark = pytest.mark.slow  # a server of its own

PLACES = {f"id{n}": f"question {n}" for n in range(20)}


@pytest.fixture
def server():
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """Seconds that the client meant to wait before it tried again; it does not wait."""
    found = []
    monkeypatch.setattr(openai._base_client.time, "sleep", found.append)
    return found


@pytest.fixture
def endpoint(server, tmp_path):
    def build(**settings):
        settings = {"retries": 2, "timeout": 5, "cache": str(tmp_path / "cache"), "concurrency": 4, **settings}
        return Endpoint(server.url, "m", **settings)

    return build


def integer(reply):
    return int(reply) if reply.isdecimal() else None


def once(misbehaviour):
    """Every question's first request goes wrong."""
    seen = Counter()

    def act(number, request):
        text = request["messages"][-1]["content"]
        seen[text] += 1
        return misbehaviour if seen[text] == 1 else None

    return act


def test_each_question_gets_its_own_reply(server, endpoint):
    server.answer = lambda text: text.removeprefix("question ")
    assert endpoint().ask(PLACES, integer) == {f"id{n}": n for n in range(20)}
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {(request["model"], request["temperature"]) for request in server.requests} == {("m", 0)}


def test_any_sampling_field_reaches_the_endpoint(server, endpoint):
    endpoint(sampling={"top_k": 5, "response_format": {"type": "json_object"}}).ask({"a": "x"}, integer)
    request = server.requests[0]
    assert request["top_k"] == 5 and request["response_format"] == {"type": "json_object"}
    assert "temperature" not in request


@pytest.mark.parametrize("concurrency", [1, 4])
def test_questions_overlap_as_far_as_they_may(concurrency, server, endpoint):
    """A reply waits until as many questions as allowed are in flight."""
    together = threading.Barrier(concurrency)
    server.misbehave = lambda number, request: None if together.wait(10) < 0 else None
    assert len(endpoint(concurrency=concurrency).ask(PLACES, integer)) == 20
    assert server.most_in_flight == concurrency


def test_equal_questions_are_asked_once(server, endpoint):
    assert endpoint().ask(dict.fromkeys("abc", "same"), integer) == {"a": 70, "b": 70, "c": 70}
    assert len(server.requests) == 1


def test_a_second_run_asks_nothing(server, endpoint):
    first = endpoint().ask(PLACES, integer)
    server.requests.clear()
    assert endpoint(concurrency=1, retries=0, timeout=1).ask(PLACES, integer) == first
    assert not server.requests


@pytest.mark.parametrize("change", [{"sampling": {"temperature": 1}}, {"model": "other"}])
def test_another_model_or_sampling_is_asked_anew(change, server, tmp_path):
    for settings in ({}, change):
        Endpoint(server.url, **{"model": "m", "cache": str(tmp_path), **settings}).ask({"a": "x"}, integer)
    assert len(server.requests) == 2


# Misbehaviour that passes


@pytest.mark.parametrize(
    "misbehaviour",
    [
        status(429),
        status(500),
        status(503),
        status(408),
        drop,
        body("{nope"),
        body({"detail": "no choices here"}),
        body({"choices": []}),
        body("[]"),
        says("I would rather not say."),
        says(None),
    ],
)
def test_what_goes_wrong_once_is_tried_again(misbehaviour, server, endpoint):
    server.misbehave = once(misbehaviour)
    assert endpoint().ask(PLACES, integer) == dict.fromkeys(PLACES, 70)
    assert len(server.requests) == 40


def test_a_reply_that_does_not_come_is_asked_for_again(server, endpoint):
    waiting = threading.Event()
    server.misbehave = once(lambda handler: waiting.wait(10))
    assert endpoint(timeout=0.5).ask({"a": "x"}, integer) == {"a": 70}
    assert len(server.requests) >= 2  # more where this machine itself is slow
    waiting.set()


def test_waits_as_long_as_the_endpoint_says(server, endpoint, naps):
    server.misbehave = once(status(429, Retry_After="37"))
    endpoint().ask({"a": "x"}, integer)
    assert naps == [37]


def test_waits_longer_each_time_and_not_in_step(server, endpoint, naps):
    server.misbehave = lambda number, request: status(500)
    for question in "ab":
        with pytest.raises(JudgeUnavailable):
            endpoint(retries=5).ask({"a": question}, integer)
    first, second = naps[:5], naps[5:]
    assert all(later > earlier for earlier, later in zip(first, first[1:4], strict=False))
    assert first != second


# Misbehaviour that stays


def test_a_reply_that_is_never_understood_is_left_out_and_not_asked_again(server, endpoint):
    server.misbehave = lambda number, request: says("no idea") if "7" in request["messages"][-1]["content"] else None
    expected = {id: 70 for id in PLACES if "7" not in id}
    assert endpoint(attempts=3).ask(PLACES, integer) == expected
    asked = Counter(request["messages"][-1]["content"] for request in server.requests)
    assert asked["question 7"] == asked["question 17"] == 3 and asked["question 8"] == 1
    server.requests.clear()
    assert endpoint(attempts=3).ask(PLACES, integer) == expected
    assert not server.requests


def test_a_refused_question_is_left_out_while_others_are_answered(server, endpoint):
    refused = {"question 3", "question 9"}
    server.misbehave = lambda number, request: (
        status(400, "content filter") if request["messages"][-1]["content"] in refused else None
    )
    assert endpoint(concurrency=1).ask(PLACES, integer).keys() == PLACES.keys() - {"id3", "id9"}
    assert len(server.requests) == 20, "no retries"


@pytest.mark.parametrize(
    "misbehaviour, reason",
    [
        (status(429, "slow down"), "429 - slow down"),
        (status(500, "oops"), "500 - oops"),
        (status(401, f"wrong key {KEY}"), r"401 - wrong key \*\*\*"),
        (status(400, "bad field"), "400 - bad field"),
        (body("<html>Welcome</html>"), "no chat completion"),
        (drop, "Connection error"),
    ],
)
def test_a_dead_endpoint_is_left_alone(misbehaviour, reason, server, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.misbehave = lambda number, request: misbehaviour
    with pytest.raises(JudgeUnavailable, match=reason) as caught:
        endpoint(concurrency=2, retries=1).ask({f"{n}": f"{n}" for n in range(100)}, integer)
    assert caught.value.asked == 100 and caught.value.missing >= 95
    assert len(server.requests) <= 5 * 3
    assert "\n" not in str(caught.value) and KEY not in str(caught.value)


def test_nobody_there(server, tmp_path):
    server.server_close()
    with pytest.raises(JudgeUnavailable, match="no reply to 1 of 1 questions: Connection error.*refused"):
        Endpoint(server.url, "m", retries=1, cache=str(tmp_path)).ask({"a": "x"}, integer)


def test_what_was_answered_before_it_died_is_kept(server, endpoint):
    server.misbehave = lambda number, request: drop if number > 7 else None
    with pytest.raises(JudgeUnavailable) as caught:
        endpoint(concurrency=3, retries=0).ask(PLACES, integer)
    assert caught.value.missing == 13
    server.misbehave = lambda number, request: None
    server.requests.clear()
    assert endpoint().ask(PLACES, integer) == dict.fromkeys(PLACES, 70)
    assert len(server.requests) == 13


# The cache on disk


def ask_until_killed(url, cache, answered):
    def parse(reply):
        answered.release()
        return 1

    Endpoint(url, "m", cache=cache, concurrency=1).ask(PLACES, parse)


def test_killed_while_asking(server, endpoint, tmp_path):
    """With the cache's own process gone without a word, what it had parsed is not asked again."""
    gate = threading.Event()
    server.misbehave = lambda number, request: None if number < 9 else lambda handler: gate.wait(10)
    context = multiprocessing.get_context("fork")
    answered = context.Semaphore(0)
    child = context.Process(target=ask_until_killed, args=(server.url, str(tmp_path / "cache"), answered))
    child.start()
    for _ in range(8):
        assert answered.acquire(timeout=60)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    gate.set()
    server.misbehave = lambda number, request: None
    server.requests.clear()
    assert endpoint().ask(PLACES, integer) == dict.fromkeys(PLACES, 70)
    assert len(server.requests) == 12


def write_many(folder, start):
    replies = ResponseCache(folder)
    for n in range(start, start + 40):
        replies.put(str(n), "x" * n)


def test_several_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=write_many, args=(tmp_path, start)) for start in (0, 40, 20)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    replies = ResponseCache(tmp_path)
    assert [replies.get(str(n)) for n in range(80)] == ["x" * n for n in range(80)]
    assert replies.get("80") is None


def test_a_cache_that_is_none(tmp_path, server):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be created"):
        Endpoint(server.url, "m", cache=str(tmp_path / "file"))
    (tmp_path / "replies.sqlite").write_text("this is no database" * 100)
    with pytest.raises(InputError, match=r"replies.sqlite: unusable \(file is not a database\)"):
        Endpoint(server.url, "m", cache=str(tmp_path))


def test_a_cache_that_breaks_later_is_an_error_and_not_a_missing_score(server, endpoint, tmp_path):
    def answer(text):
        with sqlite3.connect(tmp_path / "cache/replies.sqlite") as database:
            database.execute("DROP TABLE IF EXISTS replies")
        return "70"

    server.answer = answer
    with pytest.raises(InputError, match="unusable"):
        endpoint(concurrency=1).ask(PLACES, integer)
    assert len(server.requests) < 20


def test_the_key_is_sent_and_not_written(server, endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    endpoint(api_key_env="MY_KEY").ask(PLACES, integer)
    assert {request["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert (tmp_path / "cache/replies.sqlite").is_file()
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
