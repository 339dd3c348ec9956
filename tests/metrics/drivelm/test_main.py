"""`python -m prune2drive.metrics.drivelm`, on the sample and on small files."""

import json
import logging
import shutil
import subprocess
import sys

import pytest
from helpers.chat_server import serving, status

from prune2drive.metrics.drivelm.__main__ import main
from prune2drive.metrics.drivelm.files import read_references
from prune2drive.sample import Prediction

pytestmark = pytest.mark.slow  # starts Java

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="no java on PATH")


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


@pytest.mark.slow
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
        (
            '[\n{"id": "s_f_0",\n"answer" "x"}]',
            "output.json: not valid JSON at line 3, column 10: Expecting ':'",
        ),
        ("", "output.json: not valid JSON at line 1"),
        (b'[{"id": "\xff"}]', "output.json: cannot be read as UTF-8 text"),
        (REFERENCES, "output.json: not a file of predictions; give a list of"),
        (3, "output.json: not a file of predictions"),
        (["x"], "output.json: not a file of predictions"),
        ([{"id": 1, "answer": "x"}], "output.json: not a file of predictions"),
        ([*OUTPUT, OUTPUT[0]], "output.json: s_f_0 occurs twice"),
        ([{"id": "s_f_0", "answer": ["x"]}], "output.json: the answer of s_f_0 is not a string"),
        ([{"id": "s_f_0"}], "output.json: the answer of s_f_0 is not a string"),
        ([], "output.json: 2 of 2 references have no answer, first s_f_0"),
    ],
)
def test_bad_predictions_are_one_line_and_code_2(files, capsys, predictions, message):
    assert message in refusal(capsys, *files(predictions))


@pytest.mark.parametrize(
    "references, message",
    [
        ("{", "test_eval.json: not valid JSON at line 1"),
        (OUTPUT, "test_eval.json: field 'scenes' should be an object, found a list; give test_eval.json"),
        ({"s": {"key_frames": {"f": {}}}}, "scene s, frame f: field 'QA' should be an object, found nothing; give"),
        (
            {"s": {"key_frames": {"f": {"QA": {"behavior": [{"A": "x"}]}}}}},
            "frame f, question 0: field 'Q' should be a string, found nothing; give test_eval.json",
        ),
        (
            {"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x", "A": 1}]}}}}},
            "frame f, question 0: field 'A' should be a string, found a number; give test_eval.json",
        ),
        (
            {"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x", "tag": ["0"]}]}}}}},
            "field 'tag' should list whole numbers",
        ),
        ({"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x"}]}}}}}, "no question has both an answer and a tag"),
        ({"s": {"key_frames": {"f": {"QA": {"behavior": [{"Q": "x", "A": "y"}]}}}}}, "no question has both"),
        ({}, "no question has both"),
    ],
)
def test_bad_references_are_one_line_and_code_2(files, capsys, references, message):
    assert message in refusal(capsys, *files(references=references))


def refusal(capsys, predictions, references):
    code, out, err = run(capsys, "--predictions", predictions, "--references", references)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and ";" in err
    return err


def test_a_bad_row_of_predictions_jsonl_is_named_by_its_line(files, capsys):
    predictions, references = files('{"id": "s_f_0", "answer": "x"}\n\n{"id": "s_f_1",', name="predictions.jsonl")
    assert "predictions.jsonl: not valid JSON at line 3" in refusal(capsys, predictions, references)


def test_nothing_to_score_among_the_answers_is_an_error(files, capsys):
    predictions, references = files([])
    code, _, err = run(capsys, "--predictions", predictions, "--references", references, "--allow-missing")
    assert code == 2 and "no answer to a question that" in err


def test_missing_files_and_folders_are_named(files, capsys, tmp_path):
    predictions, references = files()
    missing = refusal(capsys, tmp_path / "nowhere.json", references)
    assert "nowhere.json: no such file; give output.json" in missing
    assert "Is a directory" in refusal(capsys, predictions, tmp_path)


def test_help_teaches_with_an_example(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert "python -m prune2drive.metrics.drivelm --predictions output.json --references test_eval.json" in text
    assert "final_offline" in text and "skipped_by_graph" in text


@pytest.fixture
def judged(files, tmp_path, monkeypatch):
    """Scores one judged answer; the server, the options and the files."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    qa = [{"Q": "Wo?", "A": "Links.", "tag": [1]}, {"Q": "Was?", "A": "Rad", "tag": [0]}]
    paths = files(references={"s": {"key_frames": {"f": {"QA": {"perception": qa}}}}})
    with serving() as server:
        options = ["--judge-base-url", server.url, "--judge-model", "m", "--judge-cache", tmp_path / "cache"]
        yield server, paths, options


def test_a_judge_scores_files_too(judged, capsys, tmp_path):
    server, paths, options = judged
    found = score(capsys, *paths, *options)
    assert (found["judge"], found["judge_n"], found["judge_unparsed"]) == (0.7, 1, 0)
    assert score(capsys, *paths, *options) == found and len(server.requests) == 1
    (tmp_path / "prompt.txt").write_text("{reference} or {answer}?")
    score(capsys, *paths, *options, "--judge-prompt-file", tmp_path / "prompt.txt")
    assert server.requests[-1]["messages"][-1]["content"] == "Links. or Vor dem Café.?"


def test_a_judge_that_does_not_answer(judged, capsys):
    server, paths, options = judged
    server.misbehave = lambda number, request: status(401, "no")
    code, out, err = run(capsys, "--predictions", paths[0], "--references", paths[1], *options)
    assert (code, out) == (2, "") and "1 of 1 answers are not judged; the same command goes on" in err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--judge-model", "m"], "a judge needs --judge-base-url and --judge-model; give both"),
        (["--judge-base-url", "http://localhost/v1"], "a judge needs --judge-base-url and --judge-model"),
        (["--judge-base-url", "https://x.org", "--judge-model", "m"], "the environment has no OPENAI_API_KEY"),
    ],
)
def test_a_judge_that_cannot_be_asked(options, message, judged, capsys):
    _, paths, _ = judged
    code, out, err = run(capsys, "--predictions", paths[0], "--references", paths[1], *options)
    assert (code, out) == (2, "") and message in err
