import pytest
from helpers.nuscenes_qa_files import ask, write
from helpers.nuscenes_tables import SIZE, annotation

from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.data.nuscenes_qa import INSTRUCTION, QUESTIONS, NuScenesQA
from prune2drive.errors import InputError


def test_a_question(tmp_path):
    asked = [ask(), ask(" How many <image>? ", 2, "g", 1, "count"), ask("What is it?", "bus", template="object")]
    dataset: Dataset = write(tmp_path, *asked, annotations=[annotation(ahead=10.0)])
    dataset.check()
    assert dataset.ids == ["f_0", "g_0", "f_1"] and dataset.cameras == ("CAM_FRONT", "CAM_BACK")
    first, second = dataset[0], dataset[1]
    assert (first.question, first.reference, first.kind) == ("Are there any cars?", "yes", "exist_0")
    assert (first.scene, first.frame) == ("s", "f")
    assert first.prompt == (
        "1: <image> 2: <image>. These two images are the front view and back view of the ego vehicle. "
        f"Are there any cars?\n{INSTRUCTION}"
    )
    assert (second.question, second.reference, second.kind) == ("How many <image>?", "2", "count_1")
    assert second.prompt.count("<image>") == 2 and "How many [image]?" in second.prompt
    row = dataset.row(2)
    assert (row.id, row.reference, row.kind, row.scene, row.frame) == ("f_1", "bus", "object_0", "s", "f")


def test_boxes_are_those_of_the_cameras_that_are_shown(tmp_path):
    car = annotation(ahead=10.0)
    (box,) = write(tmp_path, annotations=[car])[0].objects
    assert (box.camera, box.label, box.visibility) == ("CAM_FRONT", "vehicle.car", 4)
    shown = write(tmp_path, annotations=[car], cameras=["CAM_BACK"])[0]
    assert shown.objects == () and shown.image_sizes == {"CAM_BACK": SIZE} and list(shown.images) == ["CAM_BACK"]


def test_questions_of_a_frame_share_it(tmp_path, monkeypatch):
    dataset = write(tmp_path, ask(token="f"), ask(token="g"), ask(token="f"), ask(token="h"))
    assert group_by_frame(dataset, range(4)) == [[0, 2], [1], [3]]
    calls = []
    monkeypatch.setattr("prune2drive.data.frame_photos.read_image", lambda file, hint: calls.append(file.name))
    monkeypatch.setattr(dataset._photos.tables, "objects", lambda token: calls.append(token) or ())
    for index in (0, 2, 1):
        dataset[index]
    assert calls == ["f.png", "f.png", "f", "g.png", "g.png", "g"]


def test_subsets(tmp_path):
    asked = [ask(token=token) for token in "fghfgh"]
    assert write(tmp_path, *asked, scenes=["t"]).ids == ["h_0", "h_1"]
    assert write(tmp_path, *asked, slice=[1, 4]).ids == ["g_0", "h_0", "f_1"]
    assert len(write(tmp_path, *asked, sample=2, seed=3)) == 2
    assert [name[0] for name in write(tmp_path, *asked, frames=1).ids] in (["f"] * 2, ["g"] * 2, ["h"] * 2)
    fractions = {"search": 0.5, "test": 0.5}
    parts = [write(tmp_path, *asked, split=part, split_fractions=fractions, split_seed=1).ids for part in fractions]
    assert sorted(map(len, parts)) == [2, 4] and not set(parts[0]) & set(parts[1])


def test_fingerprint_is_of_what_is_asked(tmp_path):
    prints = {
        write(tmp_path, *asked, **options).fingerprint
        for asked, options in [
            ([ask()], {}),
            ([ask(token="g")], {}),
            ([ask("Why?")], {}),
            ([ask()], {"cameras": ["CAM_BACK"]}),
            ([ask()], {"instruction": ""}),
        ]
    }
    assert len(prints) == 5 and write(tmp_path, ask(answer="no")).fingerprint in prints


def test_without_instruction_the_question_stands_alone(tmp_path):
    assert write(tmp_path, instruction="")[0].prompt.endswith("of the ego vehicle. Are there any cars?")


def test_a_file_without_answers_is_legal_and_one_missing_is_not(tmp_path):
    alone = write(tmp_path, ask(answer=...), ask(answer=None))
    alone.check()
    assert alone[0].reference is None
    with pytest.raises(InputError, match="question f_1 has no answer, though others have"):
        write(tmp_path, ask(), ask(answer=""))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected an object with the field 'questions', found a list"),
        ({}, "field 'questions' should be a list, found nothing"),
        ({"questions": []}, "holds no question"),
        ({"questions": ["?"]}, "question 0: expected an object with the field 'sample_token', found a string"),
        ({"questions": [ask(question=...)]}, "question 0: field 'question' should be a string, found nothing"),
        ({"questions": [ask(), ask(question=" ")]}, "question 1: field 'question' is empty"),
        ({"questions": [ask(token=7)]}, "question 0: field 'sample_token' should be a string, found a number"),
        ({"questions": [ask(template=None)]}, "question 0: field 'template_type' should be a string, found null"),
        ({"questions": [ask(hops=...)]}, "question 0: field 'num_hop' should be a number of hops from 0, found None"),
        ({"questions": [ask(hops=True)]}, "question 0: field 'num_hop' .* found True"),
        ({"questions": [ask(hops=-1)]}, "question 0: field 'num_hop' .* found -1"),
        ({"questions": [ask(answer=["yes"])]}, "question 0: field 'answer' should be a string .* found a list"),
        ({"questions": [ask(answer=True)]}, "question 0: field 'answer' should be a string .* found a boolean"),
        ({"questions": [ask(token="x")]}, "sample.json: no sample x; set dataset.version"),
    ],
)
def test_wrong_files_say_where(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, content=content)
    assert str(caught.value).startswith(str(tmp_path / QUESTIONS)) and "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    dataset = write(tmp_path, ask(), ask(token="g"))
    (tmp_path / "samples/CAM_BACK/g.png").unlink()
    with pytest.raises(InputError, match="1 of 4 images are missing, first .*CAM_BACK/g.png; set dataset.images"):
        dataset.check()
    with pytest.raises(InputError, match="CAM_BACK/g.png: no such image; set dataset.images"):
        dataset[1]
    with pytest.raises(InputError, match="none.json: no such file; set dataset.root and dataset.questions"):
        NuScenesQA(tmp_path, tmp_path, "none.json")
    with pytest.raises(InputError, match="v1.0-trainval: no nuScenes tables there"):
        NuScenesQA(tmp_path, tmp_path)
    with pytest.raises(InputError, match="dataset.cameras: no camera 'CAM_UP'"):
        write(tmp_path, cameras=["CAM_UP"])
    with pytest.raises(InputError, match="dataset.shares: no such option"):
        write(tmp_path, shares=1)
