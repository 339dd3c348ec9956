import json
import resource
import tracemalloc
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.results.run_folder import ROWS, RunFolder
from prune2drive.sample import Prediction

TEXT = st.text(st.characters() | st.sampled_from('\n\r\0\x0b\x1c\x85\u2028\ud800\udfff"\\'), max_size=12)
VALUES = {
    **{field.name: ... for field in fields(Prediction)},  # whatever its type allows
    **dict.fromkeys(("id", "question", "scene", "frame"), TEXT),
    **dict.fromkeys(("answer", "reference", "error"), st.none() | TEXT),
    "kept": st.dictionaries(TEXT, TEXT, max_size=2),
    "seconds": st.none() | st.floats(0, allow_infinity=False),
}


def row(name, answer="yes", **more):
    return Prediction(str(name), "?", answer, **more)


def answers(folder):
    return [(found.id, found.answer) for found in RunFolder(folder).rows()]


def order(count):
    return [str(place) for place in range(count)]


def as_json(prediction):
    """JSON cannot tell two halves of a surrogate pair from the character that they make."""
    return Prediction.from_row(json.loads(json.dumps(prediction.to_row())))


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.lists(st.builds(Prediction, **VALUES).map(as_json), max_size=4, unique_by=lambda each: each.id),
    st.integers(0, 4),
)
def test_rows_come_back_as_they_were(tmp_path_factory, predictions, split):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.append(predictions[:split])
    folder.append(predictions[split:])
    assert list(folder.rows()) == predictions
    names = [each.id for each in predictions[::-1]]
    folder.merge(names)
    assert list(folder.rows()) == predictions[::-1]
    assert (folder.path / ROWS).read_bytes().count(b"\n") == len(predictions)
    assert folder.keep_answered(names) == {each.id for each in predictions if each.error is None}


@given(st.dictionaries(TEXT, TEXT | st.integers() | st.none()))
def test_json_comes_back_as_it_was(tmp_path_factory, content):
    folder = RunFolder(tmp_path_factory.getbasetemp() / "json")
    folder.write_json("run.json", content)
    assert folder.read_json("run.json") == json.loads(json.dumps(content))


def test_text_is_written_as_people_read_it(tmp_path):
    RunFolder(tmp_path).append([row(0, "Überholen 超车")])
    assert "Überholen 超车" in (tmp_path / ROWS).read_text(encoding="utf-8")


def test_merge_makes_one_file_in_the_datasets_order(tmp_path):
    folders = [RunFolder(tmp_path, rank) for rank in range(12)]
    for rank, folder in enumerate(folders):
        folder.append([row(rank + 12), row(rank)])
    assert len(list(tmp_path.glob("predictions*"))) == 12
    folders[0].merge(order(24))
    assert [name for name, _ in answers(tmp_path)] == [str(number) for number in range(24)]
    assert [file.name for file in tmp_path.iterdir()] == [ROWS]


def test_merge_keeps_each_sample_once_the_latest_and_no_strangers(tmp_path):
    RunFolder(tmp_path).append([row(0, "old"), row(1), row("stranger"), row(0, "new")])
    RunFolder(tmp_path, 1).append([row(1, "newest"), row(2)])
    RunFolder(tmp_path).merge(order(3))
    assert answers(tmp_path) == [("0", "new"), ("1", "newest"), ("2", "yes")]


def test_a_kill_between_writing_and_deleting_doubles_nothing(tmp_path, monkeypatch):
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path, 1)
    folder.append([row(0)])
    other.append([row(1)])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            folder.merge(order(2))
    assert len(list(folder.rows())) == 3
    assert folder.keep_answered(order(40)) == {"0", "1"}
    folder.merge(order(2))
    assert answers(tmp_path) == [("0", "yes"), ("1", "yes")]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_last_line_is_no_row(tmp_path, rank, cut):
    folder = RunFolder(tmp_path, rank)
    folder.append([row(0), row(1)])
    whole = folder.rows_file.read_bytes()
    folder.rows_file.write_bytes(whole[:-cut])
    RunFolder(tmp_path, 2).append([row(2)])
    assert [name for name, _ in answers(tmp_path)] == ["0", "2"]
    assert RunFolder(tmp_path).keep_answered(order(40)) == {"0", "2"}
    RunFolder(tmp_path).append([row(1)])
    RunFolder(tmp_path).merge(order(3))
    assert [name for name, _ in answers(tmp_path)] == ["0", "1", "2"]


def test_failed_rows_are_tried_again(tmp_path):
    RunFolder(tmp_path).append([row(0), row(1, None, error="a.jpg: no such image")])
    RunFolder(tmp_path, 1).append([row(2, None, error="b.jpg: no such image"), row(3)])
    folder = RunFolder(tmp_path)
    assert folder.keep_answered(order(40)) == {"0", "3"}
    assert [name for name, _ in answers(tmp_path)] == ["0", "3"]
    folder.append([row(1, "second try")])
    folder.merge(order(4))
    assert answers(tmp_path) == [("0", "yes"), ("1", "second try"), ("3", "yes")]


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"id": "1"}', '{"id": "1", "question": "", "unknown": 0}', '{"id": "1", "stages": [3]}']
)
def test_a_foreign_line_is_named(tmp_path, line):
    folder = RunFolder(tmp_path)
    folder.append([row(0)])
    with folder.rows_file.open("a") as file:
        file.write(line + "\n")
    folder.append([row(2)])
    before = folder.rows_file.read_bytes()
    for use in (lambda: folder.keep_answered(order(3)), lambda: folder.merge(order(3)), lambda: list(folder.rows())):
        with pytest.raises(InputError, match=rf"{ROWS}, line 2: not a row"):
            use()
    assert folder.rows_file.read_bytes() == before


def test_an_empty_folder_has_no_rows(tmp_path):
    folder = RunFolder(tmp_path / "new" / "run")
    assert list(folder.rows()) == [] and folder.path.is_dir()
    folder.append([])
    assert list(folder.path.iterdir()) == []
    assert folder.keep_answered([]) == set()


def test_merge_returns_the_rows_that_it_leaves(tmp_path):
    RunFolder(tmp_path).append([row(1), row("stranger"), row(0, "old")])
    RunFolder(tmp_path, 1).append([row(0, "new")])
    merged = RunFolder(tmp_path).merge(order(3))
    assert len(merged) == 2 and row(1) in merged and row(0, "old") not in merged
    assert list(merged) == list(merged) == [row(0, "new"), row(1)] == list(RunFolder(tmp_path).rows())


@pytest.mark.parametrize(
    ("ids", "tail", "is_kept"), [("012", b"", True), ("021", b"", False), ("0012", b"", False), ("012", b'{"id', False)]
)
def test_merge_rewrites_only_what_changes(tmp_path, ids, tail, is_kept):
    folder = RunFolder(tmp_path)
    folder.append(map(row, ids))
    with folder.rows_file.open("ab") as file:
        file.write(tail)
    before = folder.rows_file.stat().st_ino, folder.rows_file.read_bytes()
    assert [each.id for each in folder.merge(order(3))] == ["0", "1", "2"]
    assert ((folder.rows_file.stat().st_ino, folder.rows_file.read_bytes()) == before) == is_kept
    assert [name for name, _ in answers(tmp_path)] == ["0", "1", "2"]


def test_rows_of_another_rank_alone_become_predictions(tmp_path):
    RunFolder(tmp_path, 1).append([row(0)])
    RunFolder(tmp_path).merge(order(1))
    assert [file.name for file in tmp_path.iterdir()] == [ROWS] and answers(tmp_path) == [("0", "yes")]


def test_keep_answered_holds_no_rows_in_memory(tmp_path):
    size = 100_000
    for number in range(40):
        RunFolder(tmp_path, number % 2).append([row(number, "x" * size)])
    tracemalloc.start()
    RunFolder(tmp_path).keep_answered(order(40))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(answers(tmp_path)) == 40
    assert peak < 8 * size


def test_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "metrics.json"
    write_atomically(file, ["old\n"])

    def interrupted():
        yield "new"
        assert file.read_text() == "old\n"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, interrupted())
    assert file.read_text() == "old\n"
    write_atomically(file, ["new\n"])
    assert file.read_text() == "new\n"


def test_files_in_the_making_are_no_rows(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.append([row(1), row(0)])
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        folder.merge(order(2))
    assert len(list(tmp_path.iterdir())) == 2
    assert answers(tmp_path) == [("1", "yes"), ("0", "yes")]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run: cannot be written .*hydra\.run\.dir") as caught:
        RunFolder(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="file/metrics.json: cannot be written"):
        write_atomically(tmp_path / "file" / "metrics.json", [])


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk_is_an_error_and_loses_no_row(tmp_path, size):
    folder = RunFolder(tmp_path)
    folder.append([row(0)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (folder.rows_file.stat().st_size + 50, limits[1]))
        with pytest.raises(InputError, match=f"{ROWS}: cannot be written .*resume={tmp_path}"):
            folder.append([row(1, "x" * size)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.rows_file.stat().st_size > 0
    assert RunFolder(tmp_path).keep_answered(order(40)) == {"0"}


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no run folder to resume"), ("{\n3", "not valid JSON at line 2"), ("", "not valid")]
)
def test_a_folder_of_no_run(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=f"run.json: .*{message}"):
        RunFolder(tmp_path).read_json("run.json")
