"""What a comparison finds in run folders: names, differences, budgets, and what it cannot read."""

import csv
import io
import json
import random
import re
import statistics

import numpy as np
import pytest
from helpers.run_folders import EXACT, run_folder
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.metrics.intervals import RESAMPLES
from prune2drive.metrics.simultaneous import resampled_groups
from prune2drive.report.comparison.charts import about_camera_heat
from prune2drive.report.comparison.differences import same_budget
from prune2drive.report.comparison.findings import find
from prune2drive.report.comparison.page import sections
from prune2drive.report.comparison.tables import to_csv
from prune2drive.report.comparison.verdict import verdict
from prune2drive.report.comparison.write import explored

QUESTIONS = 60


def answers(share, seed):
    return [random.Random(f"{seed} {number}").random() < share for number in range(QUESTIONS)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    run_folder(folder / "0", "none", answers(0.95, 0), 1.0, 30)
    run_folder(folder / "1", "tfps", answers(0.9, 1), 0.5, 20)
    run_folder(folder / "2", "random", answers(0.5, 2), 0.5, 20)
    run_folder(folder / "3", "tfps", answers(0.8, 3), 0.1, 12)
    run_folder(folder / "10", "fastv", answers(0.3, 4), 0.1, 15)
    return folder


def test_runs_are_named_by_what_sets_them_apart(sweep):
    found = find([sweep])
    assert [run.label for run in found.runs] == [
        "all tokens",
        "tfps keep=0.5",
        "random keep=0.5",
        "tfps keep=0.1",
        "fastv keep=0.1",
    ], "a run with all tokens has no ratio"
    assert found.runs[1].job == "pruner=tfps ratios.keep=0.5" and found.runs[1].series == "tfps"
    assert found.common == {"model": "made", "dataset": "up"} and found.baseline.label == "all tokens"
    assert not found.faults


def test_everything_shows_the_baseline_first_then_by_budget_and_score(tmp_path):
    told = {"0": ("random", 0.1, 0.3), "1": ("fastv", 0.5, 0.6), "2": ("tfps", 0.102, 0.7), "3": ("none", 1.0, 0.8)}
    for folder, (name, keep, share) in {**told, "4": ("tfps", 0.5, 0.9)}.items():
        run_folder(tmp_path / folder, name, answers(share, folder), keep)
    found = find([tmp_path])
    labels = ["all tokens", "tfps keep=0.5", "fastv keep=0.5", "tfps keep=0.102", "random keep=0.1"]
    assert [run.label for run in found.runs] == labels
    parts = {part.heading: part for part in sections(found)}
    for heading in ("All runs", "By kind of question", "Tokens of each camera"):
        assert [str(row[0]).removesuffix(" (baseline)") for row in parts[heading].rows[1:]] == labels
    against = parts["By kind of question, against all tokens"].rows[1:]
    assert [row[0] for row in against] == labels[1:] == [row[0] for row in parts["Best at each budget"].rows[1:]]
    assert [row["run"] for row in csv.DictReader(io.StringIO(to_csv(found)))] == labels
    assert list(explored(found)) == labels
    chosen = find([tmp_path], "random keep=0.1")
    assert [run.label for run in chosen.runs] == ["random keep=0.1", *labels[:-1]]


def test_differences_are_those_of_the_formula(sweep):
    """Question by question, scene by scene."""
    found = find([sweep])
    scores = [answers(*given_) for given_ in ((0.95, 0), (0.9, 1), (0.5, 2), (0.8, 3), (0.3, 4))]
    scenes = QUESTIONS // 3
    gaps = [[a - b for a, b in zip(score, scores[0], strict=True)] for score in scores[1:]]
    sums = [[sum(gap[3 * scene : 3 * scene + 3]) for scene in range(scenes)] for gap in gaps]
    errors = [statistics.stdev(each) / scenes**0.5 / 3 for each in sums]
    weights = np.concatenate(list(resampled_groups(scenes, RESAMPLES, 0, width=4)))
    drawn = weights @ np.array(sums).T / QUESTIONS
    means = np.array([statistics.fmean(gap) for gap in gaps])
    largest = (abs(drawn - means) / errors).max(axis=1)
    half = np.quantile(largest, 0.95) * np.array(errors) * (scenes / (scenes - 1)) ** 0.5
    margins = [found.differences.margin[run] for run in found.runs[1:]]
    assert [margin.value for margin in margins] == pytest.approx(means)
    assert [margin.low for margin in margins] == pytest.approx(means - half)
    assert [margin.high for margin in margins] == pytest.approx(means + half)
    assert found.questions.unit == "scene" and found.questions.groups == scenes


def test_kinds_are_compared_among_themselves(sweep):
    found = find([sweep])
    run, score = found.runs[2], answers(0.5, 2)
    assert found.questions.kinds == ("count", "light")
    assert found.differences.kind_score[run] == {
        "count": statistics.fmean(score[::2]),
        "light": statistics.fmean(score[1::2]),
    }
    gap = [a - b for a, b in zip(score, answers(0.95, 0), strict=True)]
    assert found.differences.kind_margin[run]["light"].value == pytest.approx(statistics.fmean(gap[1::2]))
    assert found.differences.kind_margin[run]["light"].n == QUESTIONS // 2


def test_no_interval_leaves_what_is_possible(tmp_path):
    """One answer of 60 is kept, so that half the width is more than what is missing to -100 points."""
    run_folder(tmp_path / "a", "none", [True] * QUESTIONS)
    run_folder(tmp_path / "b", "tfps", [number == 0 for number in range(QUESTIONS)], 0.5)
    run_folder(tmp_path / "c", "random", [number == 4 for number in range(QUESTIONS)], 0.1)
    told = find([tmp_path]).differences
    margins = [*told.margin.values(), *(each for row in told.kind_margin.values() for each in row.values())]
    assert min(margin.low for margin in margins) == -1 and max(margin.high for margin in margins) < -0.5
    assert "\N{MINUS SIGN}98.3 [\N{MINUS SIGN}100.0," in verdict(find([tmp_path]))[0]


def test_each_budget_has_its_best(sweep):
    found = find([sweep])
    half, tenth = found.differences.budgets
    assert (half.share, half.best.label, tenth.share, tenth.best.label) == (0.5, "tfps keep=0.5", 0.1, "tfps keep=0.1")
    ahead = half.ahead[found.runs[2]]
    score = found.differences.score
    assert ahead.value == pytest.approx(score[half.best] - score[found.runs[2]]) and ahead.is_clear
    first, second = verdict(found)
    assert first.startswith("At 50\xa0% of the visual tokens tfps is best with 90\xa0% answers right, ")
    assert "against all tokens: may be noise. Ahead of the next, random, by +50.0 [" in first and first.endswith(
        "than noise."
    )
    assert second.startswith("At 10\xa0% of the visual tokens tfps is best with ")


shares = st.lists(st.none() | st.floats(0.01, 1), max_size=12)


@given(shares)
def test_budgets_hold_every_pruned_run_once(given_):
    groups = same_budget(given_)
    assert sorted(place for group in groups for place in group) == [
        place for place, share in enumerate(given_) if share is not None and share < 1
    ]
    for group in groups:
        each = [given_[place] for place in group]
        assert max(each) < min(each) * 1.03 or len(each) == 1
    tops = [max(given_[place] for place in group) for group in groups]
    assert tops == sorted(tops, reverse=True)


@pytest.mark.parametrize("name", ["tfps keep=0.1", "pruner=tfps ratios.keep=0.1", "3"])
def test_a_baseline_goes_by_its_label_options_or_folder(sweep, name):
    found = find([sweep], name)
    assert found.baseline is found.runs[0] and found.baseline.label == "tfps keep=0.1"
    assert found.differences.margin[found.runs[1]].value > 0


def test_an_unknown_baseline_is_named(sweep):
    with pytest.raises(InputError, match="--baseline 'tfp': no run goes by this name; choose one of 'all tokens', '"):
        find([sweep], "tfp")


def test_the_run_with_all_tokens_inside_a_run_is_the_baseline(tmp_path):
    run_folder(tmp_path / "a", "tfps", answers(0.9, 1), 0.5)
    run_folder(tmp_path / "a/full", "none", answers(0.95, 0), overrides=[])
    run_folder(tmp_path / "b", "random", answers(0.5, 2), 0.5)
    found = find([tmp_path / "a", tmp_path / "b"])
    assert [run.label for run in found.runs] == ["all tokens", "tfps keep=0.5", "random keep=0.5"]
    assert found.baseline is found.runs[0] and len(found.differences.margin) == 2


def test_runs_of_equal_options_are_told_apart_by_their_folders(tmp_path):
    for place in ("here/0", "there/0", "there/1"):
        run_folder(tmp_path / place, "tfps", answers(0.9, 1), 0.5)
    found = find([tmp_path / "here", tmp_path / "there", tmp_path / "there/1"])
    labels = [run.label for run in found.runs]
    assert len(set(labels)) == 3 and labels[2] == "made up tfps (1)" and str(tmp_path / "here/0") in labels[0]


def test_a_ratio_for_each_camera_is_too_long_for_a_name(tmp_path):
    for name, front in (("searched", 0.3), ("even", 0.2)):
        ratios = f"ratios.keep={{CAM_FRONT: {front}, CAM_BACK: 0.125, CAM_FRONT_LEFT: 0.25, CAM_FRONT_RIGHT: 0.5}}"
        run_folder(tmp_path / name, "tfps", answers(0.9, 1), 0.5, overrides=[ratios])
    found = find([tmp_path])
    assert [(run.label, run.series) for run in found.runs] == [("even", "even"), ("searched", "searched")]
    assert found.runs[1].job.startswith("ratios.keep={CAM_FRONT: 0.3, ")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("run.json", None, "is left out: run.json: no such file"),
        ("run.json", "[]", "is left out: run.json: not a JSON object"),
        ("run.json", '{"columns": {"score": {"text": 1}}}', "is left out: .*unexpected keyword argument 'text'"),
        ("metrics.json", None, "is left out: not finished, status finished"),
        ("metrics.json", "{", "is left out: metrics.json: not valid JSON at line 1"),
        ("metrics.json", '{"score": "high"}', "is left out: metrics.json: score is no number"),
        ("predictions.jsonl", "{}\n", "is not paired: predictions.jsonl, line 1: not a row of predictions"),
        ("predictions.jsonl", "", "is not paired: no answer has a score of its own"),
    ],
)
def test_damaged_folders_are_listed_and_the_rest_is_shown(tmp_path, file, content, said):
    for name, share in (("none", 0.9), ("tfps", 0.8), ("random", 0.5)):
        run_folder(tmp_path / name, name, answers(share, name), 1.0 if name == "none" else 0.5)
    broken = tmp_path / "random" / file
    broken.unlink() if content is None else broken.write_text(content)
    found = find([tmp_path, tmp_path / "nowhere"], is_strict=True)
    messages = [str(fault) for fault in found.faults]
    assert len(messages) == 2 and all("\n" not in message for message in messages)
    assert f"{tmp_path / 'nowhere'} is left out: no such folder" in messages
    assert any(re.match(f"{tmp_path / 'random'} {said}", message) for message in messages), messages
    assert {run.label.split()[0] for run in found.differences.score} == {"all", "tfps"}


def test_metrics_that_cannot_be_built_here(tmp_path):
    for name in ("none", "tfps", "random"):
        run_folder(tmp_path / name, name, answers(0.9, name), 1.0 if name == "none" else 0.5)
    for target, folder in (("nowhere.Metric", "tfps"), ("pathlib.Path", "random")):
        file = tmp_path / folder / "run.json"
        run = json.loads(file.read_text()) | {"config": {"metrics": {"_target_": target}}}
        file.write_text(json.dumps(run))
    found = find([tmp_path])
    reasons = " ".join(str(fault) for fault in found.faults)
    assert "its metrics, nowhere.Metric, cannot be built here" in reasons
    assert "its metrics, pathlib.Path, score no question by itself" in reasons
    assert found.differences is None and "one run alone has scores by question" in verdict(found)[0]


def test_a_judge_is_not_asked_again(tmp_path):
    """Nor is its endpoint needed."""
    judged = {"_target_": EXACT["_target_"], "drivelm": {"_target_": "prune2drive.metrics.drivelm.DriveLMScore"}}
    judged["drivelm"]["judge"] = {"_target_": "no.such.Judge"}
    for name in ("none", "tfps"):
        folder = run_folder(tmp_path / name, name, answers(0.9, name), 1.0 if name == "none" else 0.5)
        run = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(run | {"config": {"metrics": judged}}))
    found = find([tmp_path])
    assert found.differences and not found.faults


def test_other_questions_are_left_out_of_the_differences(tmp_path):
    run_folder(tmp_path / "a", "none", [True] * 30)
    run_folder(tmp_path / "b", "tfps", [True, False] * 15, 0.5, questions=range(12, 42))
    found = find([tmp_path], is_strict=True)
    assert found.questions.score_RN.shape == (2, 18) and found.questions.left_out == 24
    assert found.differences.margin[found.runs[1]].value == -0.5


def test_runs_that_share_no_question_are_refused(tmp_path):
    run_folder(tmp_path / "a", "none", [True] * 9)
    run_folder(tmp_path / "b", "tfps", [True] * 9, 0.5, questions=range(9, 18))
    with pytest.raises(InputError, match=r"a and .*b: they share no scored question; compare runs over the same") as no:
        find([tmp_path], is_strict=True)
    assert "\n" not in str(no.value)
    assert find([tmp_path]).unpaired, "when a multirun ends, its tables are written all the same"


def test_a_score_of_all_answers_together_has_no_interval_of_its_difference(sweep, tmp_path):
    assert "of all answers together" not in sections(find([sweep]))[0].note
    for name, keep in (("none", 1.0), ("tfps", 0.5)):
        file = run_folder(tmp_path / name, name, answers(0.9, name), keep) / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"score": 0.4}))
    part = sections(find([tmp_path]))[0]
    assert "Score has no interval of its difference: this score is of all answers together." in part.note
    assert [str(cell) for cell in part.rows[0][1:4]] == ["score", "answers right", "points against all tokens"]


@pytest.mark.parametrize(("per_scene", "unit"), [(1000, "frame"), (3, "scene")])
def test_frames_are_drawn_where_there_is_one_scene(tmp_path, per_scene, unit):
    for name in ("none", "tfps"):
        folder = run_folder(tmp_path / name, name, answers(0.9, name), 0.5, per_scene=per_scene)
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        for number, row in enumerate(rows):
            row["frame"] = str(number // 2)
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = find([tmp_path]).questions
    assert (questions.unit, questions.groups) == (unit, QUESTIONS // (2 if unit == "frame" else 3))


def test_scores_of_the_questions_that_name_a_camera(tmp_path):
    asked = {"What is in CAM_FRONT?": 2, "Who is to the back of the ego vehicle?": 3, "How fast do you drive?": 1}
    texts = [text for text, count in asked.items() for _ in range(count)]
    run_folder(tmp_path / "a", "none", [True] * 6)
    run_folder(tmp_path / "b", "tfps", [True, True, True, False, False, True], 0.5)
    for file in tmp_path.glob("*/predictions.jsonl"):
        rows = map(json.loads, file.read_text().splitlines())
        named = [
            row | {"question": text, "full_counts": {"CAM_FRONT": 8, "CAM_BACK": 8}}
            for row, text in zip(rows, texts, strict=True)
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in named))
    heat = about_camera_heat(find([tmp_path]))
    assert heat.columns == ["FRONT (2)", "BACK (3)", "no camera (1)"]
    assert dict(zip(heat.rows, heat.texts, strict=True)) == {
        "all tokens": ["100.0", "100.0", "100.0"],
        "tfps keep=0.5": ["100.0", "33.3", "100.0"],
    }
    assert heat.heat[heat.rows.index("tfps keep=0.5")] == [0, -1, 0]
