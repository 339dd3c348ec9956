import json
import logging
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.metrics.drivelm import DriveLMScore, coordinates, follow_graph, main, match, read_references
from prune2drive.sample import Prediction

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="no java on PATH")

CAR, VAN, BUS = "<c1,CAM_BACK,1088.3,497.5>", "<c2,CAM_FRONT,864.2,468.3>", "<c3,CAM_FRONT,1043.2,82.2>"


def row(number, question="What?", answer="Yes.", reference="Yes.", tags=(0,), frame="f", **kw):
    return Prediction(f"s_{frame}_{number}", question, answer, reference, tuple(tags), "s", frame, **kw)


def ids(rows):
    return [pair.row.id for pair in follow_graph(rows)[0]]


# An independent reading of the rules, slow and in the order of the official script.


def slow_points(text):
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", text)]
    return np.array(numbers[: len(numbers) // 2 * 2]).reshape(-1, 2)


def slow_match(answer, reference):
    points, left = slow_points(answer), list(slow_points(reference))
    wanted, found = len(left), []
    for point in points:
        best = None
        for index, other in enumerate(left):
            distance = np.abs(point - other).sum()
            if best is None or distance < best[0]:
                best = (distance, index)
        if best and best[0] < 16:
            found.append(tuple(left.pop(best[1]).tolist()))
    missed, wrong = wanted - len(found), len(points) - len(found)
    return found, 2 * len(found) / (2 * len(found) + wrong + missed) if wanted + len(points) else 0.0


def slow_scores(frames):
    accuracy, f1, skipped = [], [], 0
    for rows in frames:
        graph = [list(point) for point in slow_match(rows[0].answer, rows[0].reference)[0]]
        for number, one in enumerate(rows):
            if number and any(point not in graph for point in slow_points(one.question).tolist()):
                skipped += 1
                continue
            if 0 in one.tags:
                accuracy.append(float(one.answer == one.reference))
            if 3 in one.tags:
                f1.append(slow_match(one.answer, one.reference)[1])
    return accuracy, f1, skipped


point = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda at: f"{at[0] / 2:.1f},{at[1] / 2:.1f}")
text = st.lists(point, max_size=4).map(lambda points: " and ".join(f"<c1,CAM_BACK,{at}>" for at in points))


@given(text, text, st.sampled_from(["", " 7.5", " 12"]))
def test_match_follows_the_official_rule(answer, reference, tail):
    assert match(answer + tail, reference + tail) == slow_match(answer + tail, reference + tail)


@given(text.filter(len))
def test_a_copy_matches_exactly(reference):
    found, f1 = match(reference, reference)
    assert f1 == 1.0 and sorted(found) == sorted(coordinates(reference))


@pytest.mark.parametrize(
    "answer, found, f1",
    [
        ("<c,X,108.0,107.9>", [(100.0, 100.0)], 2 / 3),
        ("<c,X,108.0,108.0>", [], 0),
        ("<c,X,115.9,100.0> <c,X,100.0,100.0>", [(100.0, 100.0)], 1 / 2),
        ("<c,X,103.0,100.0> <c,X,100.0,103.0> <c,X,300.0,300.0>", [(100.0, 100.0), (300.0, 300.0)], 4 / 5),
        ("<c,X,100.0,100.0> 300.0", [(100.0, 100.0)], 2 / 3),
        ("<c,X,100,100>", [], 0),
        ("", [], 0),
    ],
)
def test_match_by_example(answer, found, f1):
    """Below 16 pixels in L1; each reference once, in the order of the answer; a trailing odd number is dropped."""
    assert match(answer, "<c,X,100.0,100.0> <c,X,300.0,300.0>") == (found, pytest.approx(f1))


def test_no_coordinates_at_all_score_zero_as_in_the_official_script():
    assert match("None.", "None.") == ([], 0.0)


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
    assert follow_graph(rows)[1] == {"skipped_by_graph": 2, "frames_without_graph": 0}


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
    scored, counts = follow_graph([*first, row(1, f"Is {CAR} red?"), row(2)])
    assert [pair.row.id for pair in scored] == ["s_f_1", "s_f_2"]
    assert counts == {"skipped_by_graph": 0, "frames_without_graph": 1}


def test_an_odd_number_in_a_question_is_dropped():
    assert ids([row(0, answer=CAR, reference=CAR), row(1, f"Is {CAR} within 5.5 m?")]) == ["s_f_0", "s_f_1"]


scored_row = st.tuples(text, text, text, st.sets(st.sampled_from([0, 1, 3]), min_size=1))


@given(st.lists(st.lists(scored_row, min_size=1, max_size=5), min_size=1, max_size=4))
@settings(deadline=None)
def test_scores_are_those_of_an_independent_reading(drawn):
    frames = [
        [
            row(n, question, answer, reference, tags, frame=str(f))
            for n, (question, answer, reference, tags) in enumerate(rows)
        ]
        for f, rows in enumerate(drawn)
    ]
    accuracy, f1, skipped = slow_scores(frames)
    found = DriveLMScore()([one for rows in frames for one in rows])
    assert found["skipped_by_graph"] == skipped
    for key, expected in {"accuracy": accuracy, "match_f1": f1}.items():
        assert (key in found) == bool(expected)
        if expected:
            assert found[key] == pytest.approx(np.mean(expected))
            assert found[f"{key}_n"] == len(expected)
            error = np.std(expected, ddof=1) / math.sqrt(len(expected)) if len(expected) > 1 else 0
            assert found[f"{key}_stderr"] == pytest.approx(error, abs=1e-9)


ROWS = [
    row(0, answer="A red car is ahead.", reference="A red car is ahead of us.", tags=[2]),
    row(1, answer=f"{CAR} {VAN}", reference=CAR, tags=[3]),
    row(2, answer="B", reference="B", tags=[0]),
    row(3, answer="b", reference="B", tags=[0]),
    row(4, answer="Brake.", reference="Keep going.", tags=[1]),
    row(5, answer="Two vans.", reference="Two vans.", tags=[2]),
    row(6, answer=CAR, reference=CAR, tags=[3]),
]


def test_final_offline_is_the_mean_of_its_parts_and_the_score():
    found = DriveLMScore()(ROWS)
    assert found["accuracy"] == 0.5 and found["match_f1"] == pytest.approx(5 / 6)
    assert found["language"] == pytest.approx(
        sum(found[f"bleu_{n}"] for n in range(1, 5)) / 12 + found["rouge_l"] / 3 + found["cider"] / 30
    )
    assert found["final_offline"] == pytest.approx((found["language"] + 5 / 6 + 0.5) / 3)
    errors = [found[f"{key}_stderr"] / 3 for key in ("language", "match_f1", "accuracy")]
    assert found["final_offline_stderr"] == pytest.approx(math.hypot(*errors)) and min(errors) > 0
    assert found["final_offline_n"] == 6
    assert {
        key.replace("score", "final_offline"): value for key, value in found.items() if key.startswith("score")
    } == {key: value for key, value in found.items() if key.startswith("final_offline")}
    assert not {"judge", "match", "final"} & found.keys()
    assert found["official_tokenizer"] == bool(shutil.which("java"))


def test_every_mean_has_its_count_and_error():
    found = DriveLMScore(judge=lambda rows: {one.id: 0.7 for one in rows})(ROWS)
    counts = {"official_tokenizer", "skipped_by_graph", "frames_without_graph"}
    means = {key for key in found if not key.endswith(("_n", "_stderr"))} - counts
    assert found.keys() == counts | {f"{key}{suffix}" for key in means for suffix in ("", "_n", "_stderr")}
    assert all(0 <= found[key] <= 1 for key in means - {"cider"}) and 0 <= found["cider"] <= 10
    assert all(isinstance(value, int | float) for value in found.values())
    json.loads(json.dumps(found, allow_nan=False))


def test_a_judge_is_asked_for_what_it_alone_scores_and_gives_the_official_final():
    asked = []

    def judge(rows):
        asked.extend(one.id for one in rows)
        return {"s_f_4": 0.2, "s_f_1": 0.6, "s_f_6": 0.8}

    found = DriveLMScore(judge)(ROWS)
    assert sorted(asked) == ["s_f_1", "s_f_4", "s_f_6"]
    assert found["judge"] == pytest.approx(0.2) and found["judge_n"] == 1
    assert found["match"] == pytest.approx((5 / 6 + 0.7) / 2)
    halves = [(2 / 3 + 0.6) / 2, (1 + 0.8) / 2]
    assert found["match_stderr"] == pytest.approx(np.std(halves, ddof=1) / math.sqrt(2))
    parts = 0.4 * found["judge"] + 0.2 * (found["language"] + found["match"] + found["accuracy"])
    assert found["final"] == pytest.approx(parts) == found["score"]
    assert found["final_offline"] == pytest.approx(DriveLMScore()(ROWS)["final_offline"])


def test_a_judge_in_percent_is_refused():
    with pytest.raises(InputError, match=r"judge: 65 for s_f_1 is not in \[0, 1\]"):
        DriveLMScore(lambda rows: {"s_f_1": 65})(ROWS)


@pytest.mark.parametrize("tag, keys", [(0, {"accuracy"}), (1, set()), (3, {"match_f1"})])
def test_what_has_no_samples_is_absent(tag, keys):
    found = DriveLMScore()([row(0, answer=CAR, reference=CAR, tags=[tag])])
    counts = {"skipped_by_graph", "frames_without_graph"}
    assert {key for key in found if not key.endswith(("_n", "_stderr"))} - counts == keys


@pytest.mark.parametrize("rows", [[], [row(0, reference=None)], [row(0, tags=())], [row(0, error="x")]])
def test_nothing_to_score_is_an_empty_dict(rows):
    assert DriveLMScore()(rows) == {}


def test_failed_samples_are_in_no_mean():
    assert DriveLMScore()([row(0), row(1, answer="No.", error="x"), row(2, answer=None)])["accuracy_n"] == 1


# The command line, on the sample and on small files.


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def score(capsys, predictions, references, *options):
    code, out, _ = run(capsys, "--predictions", predictions, "--references", references, *options)
    assert code == 0
    return json.loads(out)


@needs_java
def test_the_sample_scores_what_the_official_script_gives(drivelm_sample, capsys):
    """The figures are the official evaluation.py's, with pycocoevalcap 1.2 as its caption metrics."""
    found = score(capsys, drivelm_sample / "output.json", drivelm_sample / "test_eval.json")
    official = {"bleu_1": 0.16417910447730563, "bleu_2": 0.07657375167514674, "bleu_3": 0.03217726010165709}
    official |= {"bleu_4": 2.8237677512859613e-06, "rouge_l": 0.18135448157061543, "accuracy": 0, "match_f1": 0}
    assert {key: found[key] for key in official} == pytest.approx(official, rel=1e-12)
    assert found["cider"] == pytest.approx(0, abs=1e-12)
    counts = {"accuracy_n": 4, "language_n": 4, "match_f1_n": 4, "skipped_by_graph": 15, "official_tokenizer": 1}
    assert {key: found[key] for key in counts} == counts


def test_a_perfect_copy_of_the_sample_scores_one(drivelm_sample, tmp_path, capsys):
    references = drivelm_sample / "test_eval.json"
    copy = [{"id": one.id, "question": one.question, "answer": one.reference} for one in read_references(references)]
    (tmp_path / "output.json").write_text(json.dumps(copy))
    found = score(capsys, tmp_path / "output.json", references)
    assert found["accuracy"] == found["match_f1"] == 1 and found["skipped_by_graph"] == 0
    ones = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"]
    assert [found[key] for key in ones] == pytest.approx([1] * 5, abs=1e-6)
    assert found["accuracy_n"] == 11 and found["match_f1_n"] == found["language_n"] == 4


def test_half_a_copy_of_the_sample_scores_as_an_independent_reading(drivelm_sample):
    answers = {one["id"]: one["answer"] for one in json.loads((drivelm_sample / "output.json").read_text())}
    rows = read_references(drivelm_sample / "test_eval.json")
    rows = [replace(one, answer=answers[one.id] if n % 3 == 2 else one.reference) for n, one in enumerate(rows)]
    frames = {}
    for one in rows:
        frames.setdefault(one.frame, []).append(one)
    accuracy, f1, skipped = slow_scores(frames.values())
    found = DriveLMScore()(rows)
    assert (found["accuracy"], found["match_f1"]) == pytest.approx((np.mean(accuracy), np.mean(f1)))
    assert found["skipped_by_graph"] == skipped
    assert 0 < found["accuracy"] < 1


def test_the_module_prints_one_json_object(drivelm_sample):
    command = [sys.executable, "-m", "prune2drive.metrics.drivelm"]
    files = ["--predictions", drivelm_sample / "output.json", "--references", drivelm_sample / "test_eval.json"]
    done = subprocess.run([*command, *files], capture_output=True, text=True)
    assert done.returncode == 0
    assert "final_offline" in json.loads(done.stdout)


QA = [{"Q": "Wo?", "A": "Vor dem Café.", "tag": [0]}, {"Q": "Was?", "A": "自転車", "tag": [0]}]
REFERENCES = {"s": {"key_frames": {"f": {"QA": {"behavior": QA[1:], "perception": QA[:1]}}}}}
OUTPUT = [{"id": "s_f_0", "question": "Wo?", "answer": "Vor dem Café."}, {"id": "s_f_1", "question": "", "answer": "x"}]


@pytest.fixture
def files(tmp_path):
    """Writes predictions and references, given as text or as content, and returns their paths."""

    def write(predictions=OUTPUT, references=REFERENCES, name="output.json"):
        paths = tmp_path / name, tmp_path / "test_eval.json"
        for path, content in zip(paths, (predictions, references), strict=True):
            content = content if isinstance(content, bytes | str) else json.dumps(content, ensure_ascii=False)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return paths

    return write


@pytest.mark.parametrize(
    "predictions, name",
    [
        (OUTPUT, "output.json"),
        (b"\xef\xbb\xbf" + json.dumps(OUTPUT, ensure_ascii=False).encode(), "output.json"),
        ({"method": "m", "results": OUTPUT}, "submission.json"),
        ("".join(json.dumps(Prediction(**one).to_row()) + "\n" for one in OUTPUT), "predictions.jsonl"),
    ],
)
def test_every_form_of_predictions_is_read(files, capsys, predictions, name):
    found = score(capsys, *files(predictions, name=name))
    assert (found["accuracy"], found["accuracy_n"]) == (0.5, 2)


@pytest.mark.parametrize("rest", [[], [{"id": "s_f_1", "question": "", "answer": None, "error": "out of memory"}]])
def test_missing_and_failed_answers_are_left_out_only_when_allowed(files, capsys, rest):
    predictions, references = files([*OUTPUT[:1], *rest])
    assert score(capsys, predictions, references, "--allow-missing")["accuracy_n"] == 1
    code, out, err = run(capsys, "--predictions", predictions, "--references", references)
    assert (code, out) == (2, "")
    assert "1 of 2 references have no answer, first s_f_1; add them" in err


def test_answers_without_a_reference_are_ignored_with_a_warning(files, capsys, caplog):
    extra = {"id": "s_g_0", "question": "", "answer": "x"}
    with caplog.at_level(logging.WARNING):
        assert score(capsys, *files([*OUTPUT, extra]))["accuracy_n"] == 2
    assert "1 answers have no reference" in caplog.text


@pytest.mark.parametrize(
    "predictions, message",
    [
        ('[\n{"id": "s_f_0",\n"answer" "x"}]', "output.json: malformed JSON in line 3: Expecting ':' delimiter"),
        ("", "output.json: malformed JSON in line 1"),
        (b'[{"id": "\xff"}]', "output.json: not UTF-8"),
        (REFERENCES, "output.json: not a file of predictions; give a list of"),
        (3, "output.json: not a file of predictions"),
        (["x"], "output.json: not a file of predictions"),
        ([{"id": 1, "answer": "x"}], "output.json: not a file of predictions"),
        ([*OUTPUT, OUTPUT[0]], "output.json: s_f_0 is there twice"),
        ([{"id": "s_f_0", "answer": ["x"]}], "output.json: the answer of s_f_0 is not a string"),
        ([{"id": "s_f_0"}], "output.json: the answer of s_f_0 is not a string"),
        ([], "output.json: 2 of 2 references have no answer, first s_f_0"),
    ],
)
def test_bad_predictions_are_one_line_and_code_2(files, capsys, predictions, message):
    check_error(capsys, *files(predictions), message)


@pytest.mark.parametrize(
    "references, message",
    [
        ("{", "test_eval.json: malformed JSON in line 1"),
        (OUTPUT, "test_eval.json: not a DriveLM reference file"),
        ({"s": {"key_frames": {"f": {}}}}, "test_eval.json: not a DriveLM reference file"),
        (
            {"s": {"key_frames": {"f": {"QA": {"behavior": [{"A": "x"}]}}}}},
            "test_eval.json: not a DriveLM reference file",
        ),
        (
            {"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x", "A": 1}]}}}}},
            "test_eval.json: s_f_0 is malformed",
        ),
        ({"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x", "tag": ["0"]}]}}}}}, "s_f_0 is malformed"),
        ({"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x"}]}}}}}, "no question has both an answer and a tag"),
        ({"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x", "A": "y"}]}}}}}, "no question has both"),
        ({}, "no question has both"),
    ],
)
def test_bad_references_are_one_line_and_code_2(files, capsys, references, message):
    check_error(capsys, *files(references=references), message)


def check_error(capsys, predictions, references, message):
    code, out, err = run(capsys, "--predictions", predictions, "--references", references)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1 and ";" in err


def test_a_bad_row_of_predictions_jsonl_is_named_by_its_line(files, capsys):
    predictions, references = files('{"id": "s_f_0", "answer": "x"}\n\n{"id": "s_f_1",', name="predictions.jsonl")
    check_error(capsys, predictions, references, "predictions.jsonl: malformed JSON in line 3")


def test_nothing_to_score_among_the_answers_is_an_error(files, capsys):
    predictions, references = files([])
    code, _, err = run(capsys, "--predictions", predictions, "--references", references, "--allow-missing")
    assert code == 2 and "no answer to a question that" in err


def test_missing_files_and_folders_are_named(files, capsys, tmp_path):
    predictions, references = files()
    check_error(
        capsys, tmp_path / "nowhere.json", references, "nowhere.json: No such file or directory; check the path"
    )
    check_error(capsys, predictions, tmp_path, "Is a directory")


def test_help_teaches_with_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "python -m prune2drive.metrics.drivelm --predictions output.json --references test_eval.json" in text
    assert "final_offline" in text and "skipped_by_graph" in text
