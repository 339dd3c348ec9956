"""What the token explorer is given to show."""

import json
import re

import pytest
from helpers.page_runs import minidrive, write_run
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.metrics import object_coverage
from prune2drive.report import explorer as module
from prune2drive.report import photos
from prune2drive.report.explorer import explorer, safe_json
from prune2drive.report.finished_run import FinishedRun
from prune2drive.report.paired import compare, normal

SIZE = 30
WRONG = {"first": (2, 8, 12), "second": (2, 5, 12, 21), "third": (2, 5, 21, 25)}
KEEP = {"first": 64, "second": 6, "third": 9}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of the same questions, of which the first keeps everything and records nothing."""
    folder = tmp_path_factory.mktemp("runs")
    dataset, config = minidrive(SIZE)
    samples = [dataset[place] for place in range(SIZE)]
    for seed, (name, wrong) in enumerate(WRONG.items()):
        answers = ["no" if place in wrong else sample.reference for place, sample in enumerate(samples)]
        write_run(folder / name, samples, answers, KEEP[name], config, seed=seed)
    return {name: folder / name for name in WRONG}


def shown(*args, **options):
    """The explorer's data, and its text."""
    html = str(explorer(*args, **options))
    return json.loads(re.search(r'class="x-data">(.*?)</script>', html, re.DOTALL)[1]), html


def places(data, runs):
    ids = [row.id for row in FinishedRun.read(runs["first"]).rows]
    return [ids.index(question[0]) for question in data["questions"]]


@given(
    st.recursive(
        st.text() | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_data_in_a_page_is_the_data_and_no_markup(value):
    text = safe_json(value)
    assert json.loads(text) == value and text.isascii() and not set("<>&") & set(text)


def test_the_worst_questions_come_first(runs):
    data, _ = shown(runs)
    found = places(data, runs)
    assert sorted(found) == list(range(SIZE))
    assert found[:2] == [5, 21], "both other runs lost them"
    assert found[2] == 25, "one lost it"
    assert found[3:6] == [2, 12, 8], "wrong everywhere, then in most runs, then gained"
    assert found[6:] == [place for place in range(SIZE) if place not in found[:6]], (
        "and the rest in the data set's order"
    )


def test_answers_scores_and_kept_tokens_of_each_run(runs):
    data, _ = shown(runs)
    assert data["names"] == list(WRONG)
    row = next(row for row in FinishedRun.read(runs["second"]).rows if row.id == data["questions"][0][0])
    first, second, third = data["questions"][0][7]
    assert (first[0], first[1]) == (row.reference, 1.0) and (second[0], second[1]) == (row.answer, 0.0)
    assert data["picks"][first[2]] == ["a"] * 6
    assert all(code[0] == "o" for code in data["picks"][second[2]]) and second[2] != third[2]
    assert (
        data["cameras"][:2] == ["CAM_FRONT_LEFT", "CAM_FRONT"] and data["short"][1] == "FRONT" and data["columns"] == 3
    )


def test_photos_and_grids_are_embedded_once(runs):
    data, html = shown(runs)
    assert len(data["frames"]) == 3 and len(data["photos"]) == 3 * 6 and len(data["grids"]) == 1
    assert "30 of 30 questions are here" in html
    assert len({question[1] for question in data["questions"]}) == 3


def test_a_limit_and_a_choice_of_questions(runs):
    data, html = shown(runs, limit=4)
    assert places(data, runs) == [5, 21, 25, 2] and "4 of 30 questions are here" in html
    asked = {row.id for place, row in enumerate(FinishedRun.read(runs["first"]).rows) if place in (1, 25)}
    assert places(shown(runs, asked=asked)[0], runs) == [25, 1]


def test_no_more_than_there_is_room_for(runs, monkeypatch):
    whole = len(json.dumps(shown(runs)[0]["questions"]))
    monkeypatch.setattr(module, "ROOM", whole // 2)
    data, html = shown(runs)
    assert 10 < len(data["questions"]) < 20 and f"{len(data['questions'])} of 30 questions are here" in html
    monkeypatch.setattr(photos, "ROOM", 1)
    data, html = shown(runs)
    assert len(data["photos"]) == 6 and "further down have no photos" in html
    assert [min(each[0]) for each in data["frames"]] == [0, -1, -1]


@pytest.mark.parametrize("target", ["no.such.Dataset", "prune2drive.minidrive.dataset.MiniDriv", None])
def test_without_the_data_set(runs, tmp_path, target):
    dataset, _ = minidrive(2)
    samples = [dataset[0], dataset[1]]
    write_run(tmp_path, samples, ["a", "b"], 5, {"_target_": target} if target else None)
    data, html = shown({"it": tmp_path})
    assert data["photos"] == [] and "There are no photos: the questions of" in html
    assert len(data["questions"]) == 2


def test_photos_of_another_question_are_not_shown(tmp_path):
    dataset, config = minidrive(2)
    write_run(tmp_path, [dataset[0]], ["a"], 5, config)
    rows = (tmp_path / "predictions.jsonl").read_text()
    (tmp_path / "predictions.jsonl").write_text(rows.replace(dataset[0].question, "Another question?"))
    data, html = shown({"it": tmp_path})
    assert data["photos"] == [] and "its question is another one now" in html


def test_questions_that_a_run_has_not(runs, tmp_path):
    dataset, config = minidrive(3)
    write_run(tmp_path, [dataset[0]], ["a"], 5, config)
    data, _ = shown({**runs, "short": tmp_path})
    found = {question[0]: question[7][3] for question in data["questions"]}
    assert found.pop(dataset.ids[0])[0] == "a" and set(found.values()) == {None}


def test_nothing_was_recorded(runs):
    assert explorer({"first": runs["first"]}) == ""


def test_coverage_and_scores_are_those_of_the_metrics(runs):
    both = [FinishedRun.read(runs[name]) for name in ("second", "first")]
    found = compare(*both)
    assert found.scores.n == SIZE and found.scores.difference().value == pytest.approx(-1 / 30)
    reversed_rows = (runs["first"] / "predictions.jsonl").read_text().splitlines(keepends=True)[::-1]
    (runs["first"] / "predictions.jsonl").write_text("".join(reversed_rows))
    again = compare(*both)
    assert again.scores.difference() == found.scores.difference()
    metrics = [object_coverage.coverage(run.rows) for run in both]
    ours, theirs = (each["coverage/objects"] for each in metrics)
    whole = found.coverage["all", "all objects"]
    assert (normal(whole.pruned).value, normal(whole.full).value) == (ours, theirs)
    assert whole.difference().value == pytest.approx(ours - theirs) and ours < theirs
