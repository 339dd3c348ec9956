import json

import pytest
from helpers import nuscenes_tables
from helpers.goldenview_files import CAMERAS, ask, draw, write

from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.data.goldenview import INSTRUCTION, QUESTIONS, GoldenViewVQA
from prune2drive.errors import InputError


def test_a_question(tmp_path):
    draw(tmp_path, "f")
    dataset: Dataset = write(tmp_path, ask(), ask("q2", "Is <image> wet?", "NONE_OF_THE_ABOVE", "D"))
    dataset.check()
    assert dataset.ids == ["q1", "q2"] and dataset.cameras == CAMERAS
    sample = dataset[0]
    assert (
        sample.question == dataset.question(0) == "What blocks the lane?\nA. A cone.\nB. A van.\nC. A bus.\nD. Nothing."
    )
    assert sample.prompt.endswith(f"of the ego vehicle. {sample.question}\n{INSTRUCTION}")
    assert sample.prompt.count("<image>") == 6 == dataset[1].prompt.count("<image>")
    assert (sample.reference, dataset[1].reference) == ("CAM_BACK B", "NONE_OF_THE_ABOVE D")
    row = dataset.row(0)
    assert (row.kind, row.scene, row.frame, row.reference) == ("causality", "scene-1", "f", "CAM_BACK B")
    assert sample.objects == () and (sample.scene, sample.frame, sample.kind) == ("scene-1", "f", "causality")


def test_questions_of_a_frame_share_it(tmp_path):
    dataset = write(tmp_path, ask(), ask("q2", token="g"), ask("q3"))
    assert group_by_frame(dataset, range(3)) == [[0, 2], [1]]


def test_some_cameras(tmp_path):
    draw(tmp_path, "f")
    sample = write(tmp_path, cameras=["CAM_BACK", "CAM_FRONT"])[0]
    assert sample.cameras == ("CAM_BACK", "CAM_FRONT") and sample.reference == "CAM_BACK B"
    with pytest.raises(InputError, match="frame f: no image of CAM_FRONT; add other cameras"):
        write(tmp_path, ask(views={"CAM_BACK": "a.png"}), ask("q2", token="g"), cameras="CAM_FRONT")


def test_boxes_from_the_tables(tmp_path):
    draw(tmp_path, "f", "x")
    tables = nuscenes_tables.write(tmp_path / "tables", nuscenes_tables.annotation(ahead=10.0))
    options = {"nuscenes": tables, "version": nuscenes_tables.VERSION, "images": tmp_path / "nuscenes"}
    dataset = write(tmp_path, **options)
    dataset.check()
    assert [box.camera for box in dataset[0].objects] == ["CAM_FRONT"]
    assert dataset[0].image_sizes["CAM_FRONT"] == nuscenes_tables.SIZE
    with pytest.raises(InputError, match="sample.json: no sample x; set dataset.version"):
        write(tmp_path, ask(token="x"), **options).check()


def test_a_file_without_labels_is_legal(tmp_path):
    labels = ("golden_view", "gold_answer_id", "gold_answer_text")
    dataset = write(tmp_path, ask(**dict.fromkeys(labels, ...)))
    assert dataset.row(0).reference is None
    with pytest.raises(InputError, match="question q2 has no answer, though others have"):
        write(tmp_path, ask(), ask("q2", **dict.fromkeys(labels, ...)))


def test_subsets_and_fingerprint(tmp_path):
    asked = [ask(f"q{n}", token="fgh"[n // 2], scene=f"scene-{n // 3}") for n in range(6)]
    assert write(tmp_path, *asked, scenes=["scene-1"]).ids == ["q3", "q4", "q5"]
    assert write(tmp_path, *asked, slice=[1, 3]).ids == ["q1", "q2"]
    assert len(write(tmp_path, *asked, frames=1)) == 2
    whole = write(tmp_path, *asked).fingerprint
    assert len({whole, write(tmp_path, *asked, cameras="CAM_BACK").fingerprint, write(tmp_path).fingerprint}) == 3
    assert write(tmp_path, *asked, instruction="").fingerprint != whole


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([["q1"]], "question 0: expected an object with the field 'question_id', found a list"),
        ([ask(), ask()], "question_id q1 occurs twice"),
        ([ask(question=...)], "question 0: field 'question' should be a string, found nothing"),
        ([ask(), ask("q2", sample_token=" ")], "question 1: 'question_id', 'question' or 'sample_token' is empty"),
        ([ask(scene_name=3)], "question 0: field 'scene_name' should be a string, found a number"),
        ([ask(options=["A"])], "question 0: field 'options' should be an object, found a list"),
        ([ask(options={})], "question 0: field 'options' is empty"),
        ([ask(options={"A": 1})], "question 0, options: field 'A' should be a string, found a number"),
        ([ask(views={})], "question 0: field 'views' is empty"),
        ([ask(views={"CAM_BACK": "../x.png"})], "question 0: image path '../x.png' leads out"),
        ([ask(view="CAM_UP")], "question 0: field 'golden_view' is 'CAM_UP'; it should be one of CAM_FRONT"),
        ([ask(view="ROOF", views={"ROOF": "x.png"})], "'golden_view' is 'ROOF'; it should be one of NONE_OF_THE_ABOVE"),
        ([ask(view=None)], "question 0: field 'golden_view' should be a string, found null"),
        ([ask(answer="E")], "question 0: field 'gold_answer_id' is 'E'; it should be one of A, B, C, D"),
        ([ask(), ask("q2", views={"CAM_BACK": "x.png"})], "question q2: 'views' differ from those of another question"),
    ],
)
def test_wrong_files_say_where(tmp_path, asked, message):
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, *asked)
    assert str(caught.value).startswith(str(tmp_path / QUESTIONS)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no question"), ("{", "not valid JSON at line 1"), (json.dumps(ask()) + "\n7", "question 1: expected")],
)
def test_damaged_files(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path, content=content)


def test_files_that_are_not_there(tmp_path):
    dataset = write(tmp_path)
    with pytest.raises(InputError, match="6 of 6 images are missing, first .*nuscenes/samples/CAM_FRONT/f.png; set"):
        dataset.check()
    with pytest.raises(InputError, match="none.jsonl: no such file; set dataset.root and dataset.questions"):
        GoldenViewVQA(tmp_path, "none.jsonl")
    (tmp_path / "one.json").write_text(json.dumps(ask()))
    with pytest.raises(InputError, match=r"expected one question a line \(.jsonl\) or a list of them, found an object"):
        GoldenViewVQA(tmp_path, "one.json")
