import json
import re

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.metrics.drivelm.files import read_predictions
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.results.drivelm_submission import DriveLMSubmission
from prune2drive.sample import Prediction

pytestmark = pytest.mark.slow  # whole runs

WHO = {
    "method": "Tokens left out",
    "team": "Us",
    "authors": ["Ada Lovelace", "Жан"],
    "email": "ada@example.org",
    "institution": "Home",
    "country": "Land",
}
IDS = [f"{scene * 32}_{'0' * 31}{frame}_{number}" for scene in "ab" for frame in (1, 2) for number in (0, 1)]
OPTIONS = ["submission=drivelm", *(f"submission.{name}={value}" for name, value in WHO.items() if name != "authors")]
OPTIONS += ["submission.authors=['Ada Lovelace','Жан']"]


def rows(**changes):
    return [Prediction(id, f"Why {id}?", "Because.", **changes) for id in IDS]


def submission(**changes):
    return DriveLMSubmission(**{**WHO, **changes})


def check_schema(content):
    """The challenge's format as its README describes it."""
    assert list(content) == ["method", "team", "authors", "email", "institution", "country", "results"]
    assert all(isinstance(content[name], str) and content[name] for name in WHO if name != "authors")
    assert content["authors"] and all(isinstance(author, str) for author in content["authors"])
    for row in content["results"]:
        assert list(row) == ["id", "question", "answer"] and all(isinstance(text, str) for text in row.values())
    assert len({row["id"] for row in content["results"]}) == len(content["results"])


def test_the_file_is_the_challenges(tmp_path):
    command = submission().write(tmp_path, rows(), len(IDS))
    content = json.loads((tmp_path / "submission.json").read_text(encoding="utf-8"))
    check_schema(content)
    assert {name: content[name] for name in WHO} == WHO
    assert [row["id"] for row in content["results"]] == IDS
    assert read_predictions(tmp_path / "submission.json") == dict.fromkeys(IDS, "Because.")
    assert command == f"hf upload <user>/<repository> {tmp_path}/submission.json submission.json"
    assert [file.name for file in tmp_path.iterdir()] == ["submission.json"]


@pytest.mark.parametrize("name", WHO)
@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_field(name, empty):
    value = [empty] if name == "authors" else empty
    with pytest.raises(InputError, match=f"submission.{name}=.*: the challenge requires a text") as caught:
        submission(**{name: value})
    assert "\n" not in str(caught.value)


def test_authors_are_a_list():
    with pytest.raises(InputError, match="submission.authors=Ada: not a list; write submission.authors="):
        submission(authors="Ada")
    with pytest.raises(InputError, match="submission.authors="):
        submission(authors=[])


@pytest.mark.parametrize("id", ["standard-test-000000_standard-test-000000-0_0", IDS[0].upper(), IDS[0][:-2], ""])
def test_questions_of_another_dataset(id):
    submission().check(IDS)
    with pytest.raises(InputError, match=f"{re.escape(id)} is no DriveLM id"):
        submission().check([*IDS, id])


@pytest.mark.parametrize("missing", [rows()[1:], [*rows()[1:], rows(error="no image")[0]], rows()[:3]])
def test_nothing_is_written_while_answers_are_missing(missing, tmp_path):
    count = len(IDS) - sum(row.error is None for row in missing)
    with pytest.raises(InputError, match=rf"{count} of 8 answers are missing; go on with resume={tmp_path}"):
        submission().write(tmp_path, missing, len(IDS))
    assert not list(tmp_path.iterdir())


# Runs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A challenge's file of questions with ids as nuScenes has them."""
    folder = tmp_path_factory.mktemp("files")
    MiniDrive(resolution=28, size=2).export(folder)
    images = sorted(str(file) for file in (folder / "nuscenes").rglob("*.jpg"))
    turn = {"from": "human", "value": "What is there?"}
    entries = [{"id": id, "image": images[:1], "conversations": [turn]} for id in IDS]
    (folder / "test_llama.json").write_text(json.dumps(entries))
    return folder


def ask(folder, files, *options):
    return runs.ask(folder, files, "dataset.questions=test_llama.json", *OPTIONS, *options)


def test_a_run_leaves_its_submission(files, tmp_path, caplog):
    with caplog.at_level("INFO"):
        ask(tmp_path, files, "full=true")
    content = json.loads((tmp_path / "submission.json").read_text(encoding="utf-8"))
    check_schema(content)
    assert {row["id"]: row["answer"] for row in content["results"]} == runs.answers(tmp_path)
    assert f"to submit: hf upload <user>/<repository> {tmp_path}/submission.json" in caplog.text
    assert not (tmp_path / "full/submission.json").exists()


def test_a_failed_sample_is_said_and_the_resumed_run_submits(files, tmp_path, monkeypatch):
    good = runs.Lively.collate

    def collate(self, samples, **options):
        if any(sample.id == IDS[3] for sample in samples):
            raise InputError("too long")
        return good(self, samples, **options)

    with monkeypatch.context() as patched:
        patched.setattr(runs.Lively, "collate", collate)
        with pytest.raises(InputError, match=f"1 of 8 answers are missing; go on with resume={tmp_path}"):
            ask(tmp_path, files, "on_error=skip")
    assert runs.read(tmp_path, "metrics.json") and not (tmp_path / "submission.json").exists()
    ask(tmp_path, files, f"resume={tmp_path}", "on_error=skip")
    check_schema(runs.read(tmp_path, "submission.json"))


def test_what_cannot_be_submitted_is_known_before_the_model_is_loaded(files, tmp_path):
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="submission.team=: the challenge requires a text"):
        ask(tmp_path / "run", files, "submission.team=''")
    with pytest.raises(InputError, match="submission.method is not set"):
        runs.ask(tmp_path / "run", files, "dataset.questions=test_llama.json", "submission=drivelm")
    with pytest.raises(InputError, match="standard-test-000000.* is no DriveLM id"):
        runs.run(tmp_path / "run", *OPTIONS)
    assert runs.Lively.loaded == before
