import json
import re

import pytest
from helpers import goldenview_files, runs

from prune2drive.errors import InputError
from prune2drive.metrics.goldenview import VIEWS, GoldenViewScore
from prune2drive.results.goldenview_submission import EVALUATOR, GoldenViewSubmission
from prune2drive.sample import Prediction
from prune2drive.tasks import evaluate

IDS = ["sfall_0001_causality", "sfall_0001_counterfactual", "sfall_0005_intent_prediction"]
ANSWERS = ["CAM_FRONT A", "View: none_of_the_above, answer: D", "B. I see it in CAM_BACK_LEFT."]
FIELDS = ["question_id", "predicted_view", "predicted_answer_id"]


def rows(*answers, **changes):
    return [Prediction(id, "Why?", answer, **changes) for id, answer in zip(IDS, answers, strict=True)]


def read(folder):
    return [json.loads(line) for line in (folder / "submission.jsonl").read_text(encoding="utf-8").splitlines()]


def check_schema(submitted, ids):
    """What the evaluator's README asks of a file."""
    assert sorted(row["question_id"] for row in submitted) == sorted(ids)
    for row in submitted:
        assert list(row) == FIELDS and row["predicted_view"] in VIEWS and row["predicted_answer_id"] in "ABCD"


def test_the_file_is_the_evaluators(tmp_path):
    said = GoldenViewSubmission().write(tmp_path, rows(*ANSWERS), 3)
    check_schema(read(tmp_path), IDS)
    assert [tuple(row.values()) for row in read(tmp_path)] == [
        (IDS[0], "CAM_FRONT", "A"),
        (IDS[1], "NONE_OF_THE_ABOVE", "D"),
        (IDS[2], "CAM_BACK_LEFT", "B"),
    ]
    assert said == f"{tmp_path}/submission.jsonl to the task goldenviewvqa of {EVALUATOR}"
    assert [file.name for file in tmp_path.iterdir()] == ["submission.jsonl"]


def test_what_is_submitted_is_what_is_scored(tmp_path):
    """A benchmark that compares the submitted pairs with the labels counts what metrics.json counts."""
    labels = ["CAM_FRONT A", "CAM_BACK D", "CAM_BACK_LEFT B"]
    answered = [Prediction(id, "?", *pair) for id, *pair in zip(IDS, ANSWERS, labels, strict=True)]
    GoldenViewSubmission().write(tmp_path, answered, 3)
    right = [f"{row[FIELDS[1]]} {row[FIELDS[2]]}" == label for row, label in zip(read(tmp_path), labels, strict=True)]
    assert sum(right) / 3 == GoldenViewScore()(answered)["joint_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "view", "letter"),
    [
        ("CAM_BACK", "CAM_BACK", "A"),
        ("C", "CAM_FRONT_LEFT", "C"),
        ("CAM_BACK, CAM_FRONT, answer: C", "CAM_FRONT_LEFT", "C"),
        ("CAM_BACK E", "CAM_BACK", "A"),  # the benchmark has four options
        ("", "CAM_FRONT_LEFT", "A"),
    ],
)
def test_an_answer_that_names_no_view_or_no_option(answer, view, letter, tmp_path):
    answers = [*ANSWERS[:2], answer]
    with pytest.raises(InputError, match=f"1 of 3 answers name no view or no option, such as that to {IDS[2]}") as said:
        GoldenViewSubmission().write(tmp_path, rows(*answers), 3)
    assert "\n" not in str(said.value) and not list(tmp_path.iterdir())

    said = GoldenViewSubmission("CAM_FRONT_LEFT A").write(tmp_path, rows(*answers), 3)
    check_schema(read(tmp_path), IDS)
    assert said.endswith("; 1 answers name no view or no option: 'CAM_FRONT_LEFT A' stands there")
    assert tuple(read(tmp_path)[2].values()) == (IDS[2], view, letter)


@pytest.mark.parametrize("unread", ["", "A", "CAM_FRONT", "CAM_FRONT E", "CAM_TOP A", 3])
def test_what_stands_for_unread_answers_is_itself_readable(unread):
    with pytest.raises(InputError, match=r"submission.unread=.*: names no view or no option; write 'CAM_FRONT A', say"):
        GoldenViewSubmission(unread)
    assert GoldenViewSubmission("cam_back C").unread == "cam_back C"


@pytest.mark.parametrize(
    "id", ["standard-test-000000-0", f"{'a' * 32}_{'0' * 32}_1", IDS[0].upper(), f"{IDS[0]}-2", ""]
)
def test_questions_of_another_dataset(id):
    GoldenViewSubmission().check(IDS)
    with pytest.raises(InputError, match=f"{re.escape(id)} is no GoldenViewVQA id"):
        GoldenViewSubmission().check([*IDS, id])


@pytest.mark.parametrize("missing", [rows(*ANSWERS)[1:], rows(*ANSWERS, error="no image"), rows(None, *ANSWERS[1:])])
def test_nothing_is_written_while_answers_are_missing(missing, tmp_path):
    count = 3 - sum(row.error is None and row.answer is not None for row in missing)
    with pytest.raises(InputError, match=rf"{count} of 3 answers are missing; go on with resume={tmp_path}"):
        GoldenViewSubmission().write(tmp_path, missing, 3)
    assert not list(tmp_path.iterdir())


# Runs


@pytest.mark.slow
def test_a_run_leaves_its_submission(tmp_path, caplog):
    """On questions without labels, as the held-out ones are; the tiny model's answers name nothing."""
    unlabelled = dict.fromkeys(("golden_view", "gold_answer_id", "gold_answer_text"), ...)
    goldenview_files.write(tmp_path / "data", *(goldenview_files.ask(id, **unlabelled) for id in IDS))
    goldenview_files.draw(tmp_path / "data", "f")
    options = [f"folder={tmp_path}/run", runs.LIVELY, *runs.BARE, "dataset=goldenview", "submission=goldenview"]
    options += [f"dataset.root={tmp_path}/data"]
    with pytest.raises(InputError, match="3 of 3 answers name no view or no option"):
        evaluate.run(runs.configuration(*options))
    before = runs.Lively.loaded
    with caplog.at_level("INFO"):
        evaluate.run(runs.configuration(*options, f"resume={tmp_path}/run", "submission.unread=CAM_BACK B"))
    assert runs.Lively.loaded == before
    assert [tuple(row.values()) for row in read(tmp_path / "run")] == [(id, "CAM_BACK", "B") for id in IDS]
    assert f"to submit: {tmp_path}/run/submission.jsonl to the task goldenviewvqa" in caplog.text


@pytest.mark.slow
def test_what_cannot_be_submitted_is_known_before_the_model_is_loaded(tmp_path):
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="standard-test-000000.* is no GoldenViewVQA id"):
        runs.run(tmp_path / "run", "submission=goldenview")
    assert runs.Lively.loaded == before
