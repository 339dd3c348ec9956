import json

import pytest
from helpers.drivelmm_o1_files import CAMERAS, colour, draw, item, write

from prune2drive.cameras import LAYOUT
from prune2drive.data.dataset import Dataset
from prune2drive.data.drivelmm_o1 import INSTRUCTION, DriveLMMo1
from prune2drive.errors import InputError


def test_an_item(tmp_path):
    draw(tmp_path, "s_f")
    dataset: Dataset = write(tmp_path, item(), item("s_f_2", " Where to? \n"))
    dataset.check()
    assert dataset.ids == ["s_f_1", "s_f_2"] and dataset.cameras == CAMERAS
    sample = dataset[0]
    assert (sample.id, sample.frame, sample.scene) == ("s_f_1", "s_f", "s")
    assert sample.reference == "A van." and sample.steps == ("1. Look at the top row.", "2. A van is near.")
    assert sample.prompt == f"{INSTRUCTION}\n<image>\nWhat is near?"
    assert dataset[1].question == dataset.question(1) == "Where to?"
    assert sample.mosaic.rows == LAYOUT
    assert {camera: image.getpixel((8, 4)) for camera, image in sample.images.items()} == {
        camera: colour(camera) for camera in CAMERAS
    }
    assert sample.image_sizes == dict.fromkeys(CAMERAS, (16, 9))


def test_the_order_of_the_views():
    """The benchmark's answers speak of `the bottom row, first image (back right)`."""
    views = [["front left", "front", "front right"], ["back right", "back", "back left"]]
    assert [[camera[4:].lower().replace("_", " ") for camera in row] for row in LAYOUT] == views


def test_six_photos_are_the_same_pictures(tmp_path):
    draw(tmp_path, "s_f")
    stitched = write(tmp_path, item())
    photos = DriveLMMo1(tmp_path, nuscenes=tmp_path / "nuscenes")
    photos.check()
    for camera in CAMERAS:
        assert photos[0].images[camera].tobytes() == stitched[0].images[camera].tobytes()
    assert photos[0].mosaic == stitched[0].mosaic and photos[0].prompt == stitched[0].prompt


def test_six_images_instead_of_one(tmp_path):
    draw(tmp_path, "s_f")
    sample = write(tmp_path, item(question="Is <image> near?"), stitched=False)[0]
    assert sample.mosaic is None and sample.prompt.count("<image>") == 6 == len(sample.images)
    assert "front left view, front view, front right view" in sample.prompt
    assert sample.prompt.startswith(INSTRUCTION) and sample.prompt.endswith("Is [image] near?")
    assert write(tmp_path, item(question="Is <image> near?"))[0].prompt.count("<image>") == 1


def test_another_layout(tmp_path):
    draw(tmp_path, "s_f")
    dataset = write(tmp_path, item(), layout=[row[::-1] for row in LAYOUT])
    assert dataset[0].images["CAM_FRONT_RIGHT"].getpixel((0, 0)) == colour("CAM_FRONT_LEFT")
    with pytest.raises(InputError, match="name each camera once"):
        write(tmp_path, item(), layout=[["CAM_FRONT"], ["CAM_FRONT"]])


@pytest.mark.parametrize("layout", ["object", "named picture", "steps as a list"])
def test_other_ways_to_write_it(tmp_path, layout):
    draw(tmp_path, "s_f")
    plain = write(tmp_path, item())
    changed = {
        "object": {"s_f_1": item()},
        "named picture": [item(image="s_f.png")],
        "steps as a list": [item(steps=["1. Look at the top row.", "2. A van is near."])],
    }[layout]
    (tmp_path / "own.json").write_text(json.dumps(changed))
    dataset = DriveLMMo1(tmp_path, "own.json")
    assert dataset.fingerprint == plain.fingerprint
    assert (dataset[0].prompt, dataset[0].steps) == (plain[0].prompt, plain[0].steps)


def test_a_prompt_file(tmp_path):
    draw(tmp_path, "s_f")
    (tmp_path / "words.txt").write_text("Think first.\nQuestion: \n")
    (tmp_path / "theirs.py").write_text(
        "import no_such_module\ndef main():\n    prompt = 'Think first.\\nQuestion: '\n"
    )
    own = write(tmp_path, item())
    text, python = (write(tmp_path, item(), prompt_file=tmp_path / name) for name in ("words.txt", "theirs.py"))
    assert text[0].prompt == python[0].prompt == "Think first.\nQuestion: \n<image>\nWhat is near?"
    assert text.fingerprint == python.fingerprint != own.fingerprint
    (tmp_path / "other.py").write_text("prompt = input()")
    for name, said in [("other.py", "malformed|ValueError|node"), ("none.txt", "No such file")]:
        with pytest.raises(InputError, match=f"dataset.prompt_file={tmp_path}/{name}: cannot be used .*({said})"):
            write(tmp_path, item(), prompt_file=tmp_path / name)


def test_fingerprint_is_of_what_is_asked(tmp_path):
    prints = {
        write(tmp_path, *items, **options).fingerprint
        for items, options in [
            ([item()], {}),
            ([item("s_g_1")], {}),
            ([item(question="Why?")], {}),
            ([item()], {"stitched": False}),
            ([item()], {"layout": LAYOUT[::-1]}),
        ]
    }
    assert len(prints) == 5
    assert write(tmp_path, item(final_answer="A bus.", steps="")).fingerprint in prints


def test_subsets(tmp_path):
    items = [item(f"s{number // 4}_f_{number}") for number in range(40)]
    whole = write(tmp_path, *items)
    assert DriveLMMo1(tmp_path, slice=[5, 9]).ids == whole.ids[5:9]
    assert len(DriveLMMo1(tmp_path, sample=7, seed=1).ids) == 7
    assert DriveLMMo1(tmp_path, scenes=["s3"]).ids == whole.ids[12:16]
    parts = [DriveLMMo1(tmp_path, split=split).ids for split in ("search", "test")]
    assert not {name.split("_")[0] for name in parts[0]} & {name.split("_")[0] for name in parts[1]}


def test_questions_without_answers_are_legal_and_one_missing_is_not(tmp_path):
    draw(tmp_path, "s_f")
    alone = write(tmp_path, item(final_answer=None, steps=None))
    alone.check()
    assert alone[0].reference is None and alone[0].steps == ()
    mixed = write(tmp_path, item(), item("s_f_2", final_answer=""))
    assert mixed[0].reference
    for ask in (mixed.check, lambda: mixed[1]):
        with pytest.raises(InputError, match="question s_f_2 has no final_answer"):
            ask()


def test_missing_pictures(tmp_path):
    draw(tmp_path, "s_f")
    dataset = write(tmp_path, item(), item("s_g_1"), item("s_g_2"))
    with pytest.raises(
        InputError, match="1 of 2 images are missing, first .*multiview_val/s_g.png; set dataset.images"
    ):
        dataset.check()
    with pytest.raises(InputError, match="s_g.png: no such image"):
        dataset[1]
    photos = write(tmp_path, item(), item("s_f_2", image=["samples/CAM_BACK/a.png"]), nuscenes=tmp_path / "nuscenes")
    assert photos[0].images
    for ask in (photos.check, lambda: photos[1]):
        with pytest.raises(InputError, match="item 1: field 'image' lists no photo in a folder CAM_FRONT_LEFT"):
            ask()


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "holds no question"),
        ([7], "item 0: expected an object"),
        ([item(), item() | {"idx": 3}], "item 1: field 'idx' should be a string"),
        ([item(question=" ")], "item 0: field 'question' is empty"),
        ([item(question=None)], "item 0: field 'question'"),
        ([item(steps=3)], "item 0: field 'steps' should be a list"),
        ([item(final_answer=3)], "item 0: field 'final_answer'"),
        ([item(), item()], "idx s_f_1 occurs twice"),
        ([item(image="../secret.png")], "item 0: image path '../secret.png' leads out"),
        ([item("../../s_f_1")], "item 0: image path '../../s_f.png' leads out"),
        ([item(image="/etc/passwd")], "item 0: image path '/etc/passwd' leads out"),
    ],
)
def test_wrong_files_say_where(tmp_path, items, message):
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, *items)
    assert str(tmp_path / "DriveLMMo1_TEST.json") in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="DriveLMMo1_TEST.json: no such file; set dataset.root"):
        DriveLMMo1(tmp_path)


def test_a_stitched_picture_is_shown_as_it_was_read(tmp_path, monkeypatch):
    draw(tmp_path, "s_f", size=(96, 54))
    sample = write(tmp_path, item())[0]
    monkeypatch.setattr(type(sample.mosaic), "stitch", lambda *_: pytest.fail("the picture was stitched again"))
    assert list(sample.shown.values()) == [sample.picture]
    assert sample.cameras == sample.mosaic.cameras and sample.images["CAM_BACK"].size == (96, 54)


def test_an_unknown_option_is_one_line(tmp_path):
    with pytest.raises(InputError, match="^dataset.shares: no such option; .* split_fractions"):
        write(tmp_path, item(), shares={"test": 1})
