import pytest
from helpers.drivelm_files import SIX, ask, conversation, draw, key_frame, scenes, write

from prune2drive.data.drivelm import DriveLM
from prune2drive.errors import InputError

ASKED = {"planning": [ask("A?")]}


def fails(make) -> str:
    with pytest.raises(InputError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_root_and_no_questions(tmp_path):
    assert "dataset.root" in fails(lambda: DriveLM(tmp_path / "no"))
    message = fails(lambda: DriveLM(tmp_path))
    assert "v1_1_train_nus.json, v1_1_val_nus_q_only.json, test_eval.json, test_llama.json" in message
    assert "mine.json" in fails(lambda: DriveLM(tmp_path, "mine.json"))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{\n "s": oops}', ["not valid JSON", "line 2, column 7"]),
        ("3", ["expected DriveLM's scenes", "a number"]),
        ({}, ["no question"]),
        (scenes(f=key_frame(perception=[])), ["no question"]),
        ({"s": {}}, ["scene s", "'key_frames'", "nothing"]),
        ({"s": []}, ["scene s", "'key_frames'", "a list"]),
        (scenes(f={"QA": ASKED}), ["scene s, frame f", "'image_paths'"]),
        (scenes(f={"QA": ASKED, "image_paths": {"CAM_FRONT": None}}), ["scene s, frame f", "'CAM_FRONT'", "null"]),
        (scenes(f={"image_paths": {"CAM_FRONT": "a.jpg"}}), ["scene s, frame f", "'QA'"]),
        (scenes(f=key_frame() | {"QA": {"planning": {}}}), ["frame f, QA", "'planning'", "an object"]),
        (scenes(f=key_frame() | {"QA": {"planning": ["?"]}}), ["frame f, question 0", "'Q'", "a string"]),
        (scenes(f=key_frame(planning=["A?", {"A": "B"}])), ["frame f, question 1", "'Q'"]),
        (scenes(f=key_frame(planning=[ask("A?", 3)])), ["question 0", "'A'", "a number"]),
        (scenes(f=key_frame(planning=[ask("A?", tag=["x"])])), ["question 0", "'tag'", "['x']"]),
        (scenes(f=key_frame(planning=["A?", " \n"])), ["s_f_1", "is empty"]),
        (scenes(f=key_frame(cameras=[], planning=["A?"])), ["frame f", "no camera"]),
        (
            scenes(f=key_frame(planning=["A?"], objects={"<c1,CAM_BACK,1,1>": {}})),
            ["object <c1,CAM_BACK,1,1>", "'2d_bbox'"],
        ),
        (scenes(f=key_frame(planning=["A?"], objects={"<c1,CAM_BACK,1,1>": {"2d_bbox": [1]}})), ["four numbers"]),
        (
            scenes(f=key_frame(planning=["A?"], objects={"c1": {"2d_bbox": [1, 2, 3, 4]}})),
            ["object c1", "<id,CAMERA,x,y>"],
        ),
        ([conversation(), 7], ["entry 1", "'id'", "a number"]),
        ([conversation(), conversation()], ["s_f_0", "twice"]),
        ([conversation(question="<image>\n")], ["s_f_0", "is empty"]),
        ([conversation() | {"conversations": []}], ["entry 0", "0 turns"]),
        ([conversation() | {"image": "a.jpg"}], ["entry 0", "'image'", "a string"]),
        ([conversation(cameras=["CAM_BACK", "CAM_BACK"])], ["entry 0", "one image a camera"]),
        ([conversation() | {"image": ["a.jpg"]}], ["entry 0", "one image a camera"]),
    ],
)
def test_wrong_files_say_where(tmp_path, content, parts):
    message = fails(lambda: write(tmp_path, content, "odd.json"))
    assert message.startswith(f"{tmp_path / 'odd.json'}: ")
    for part in parts:
        assert part in message


def test_not_text(tmp_path):
    (tmp_path / "test_eval.json").write_bytes(b'{"\xff": 1}')
    assert "UTF-8" in fails(lambda: DriveLM(tmp_path))


def test_missing_images_are_counted(tmp_path):
    dataset = draw(write(tmp_path, scenes(f=key_frame(perception=["A?"]))))
    gone = [dataset.images / f"samples/{camera}/f__{camera}.png" for camera in SIX[1:3]]
    for file in gone:
        file.unlink()
    message = fails(dataset.check)
    assert f"2 of 6 images are missing, first {gone[0]}" in message and "dataset.images" in message
    message = fails(lambda: dataset[0])
    assert str(gone[0]) in message and "dataset.images" in message
    DriveLM(tmp_path, cameras=["CAM_FRONT"]).check()


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"text", lambda data: data[: len(data) // 2]])
def test_damaged_images_are_named(tmp_path, damage):
    dataset = draw(write(tmp_path, scenes(f=key_frame(perception=["A?"]))))
    file = dataset.images / "samples/CAM_BACK/f__CAM_BACK.png"
    file.write_bytes(damage(file.read_bytes()))
    dataset.check()
    assert f"{file}: cannot be read as an image" in fails(lambda: dataset[0])


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "../nuscenes/../../passwd", "data/nuscenes//etc/passwd", "a\\..\\..\\b.jpg"]
)
@pytest.mark.parametrize("layout", ["scenes", "conversations"])
def test_a_path_out_of_the_images_folder_is_refused(tmp_path, path, layout):
    content = scenes(f=key_frame(perception=["A?"]) | {"image_paths": {"CAM_FRONT": path}})
    if layout == "conversations":
        content = [conversation() | {"image": [path]}]
    message = fails(lambda: write(tmp_path, content))
    place = "scene s, frame f" if layout == "scenes" else "entry 0"
    assert f"v1_1_train_nus.json: {place}: image path " in message and "leads out of the images' folder" in message


def test_an_item_without_its_answer_or_images_is_the_only_one_lost(tmp_path):
    good = key_frame("f", perception=["A?", ask("B?", None)])
    dataset = draw(write(tmp_path, scenes(f=good, g={"QA": ASKED}, h=key_frame("h", perception=["C?"]))))
    for index, part in [(1, "question s_f_1 has no answer"), (2, "scene s, frame g: field 'image_paths'")]:
        assert part in fails(lambda index=index: dataset[index])
        assert dataset.question(index)
    assert [dataset[index].question for index in (0, 3)] == ["A?", "C?"]
    message = fails(dataset.check)
    assert "question s_f_1 has no answer" in message and "2 such questions" in message


def test_items_that_a_subset_leaves_out_do_no_harm(tmp_path):
    content = scenes(f=key_frame("f", perception=["A?", ask("B?", None)]), g={"QA": ASKED})
    draw(write(tmp_path, content))
    DriveLM(tmp_path, slice=[0, 1]).check()


LONG = "n\n" * 5000


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (scenes(f=key_frame(planning=[ask("A?", tag=[*range(9000), "x"])])), "found [0, 1, "),
        ({LONG: {}}, "scene n"),
        (scenes(**{LONG: {}}), "scene s, frame n"),
        (scenes(f=key_frame(planning=["A?"], objects={LONG: {}})), "object n"),
        (scenes(f={"QA": ASKED, "image_paths": {LONG: 3}}), "field 'n"),
        ([conversation(LONG), conversation(LONG)], "question id n"),
        ([conversation(LONG, question="")], "question n"),
        ([conversation() | {"image": [f"../{LONG}"]}], "image path '../n"),
    ],
)
def test_a_message_shortens_what_it_quotes(tmp_path, content, part):
    message = fails(lambda: write(tmp_path, content))
    assert part in message and len(message) < 400


def test_a_path_that_no_file_can_have_is_a_missing_image(tmp_path):
    write(tmp_path, scenes(f={"QA": ASKED, "image_paths": {"CAM_FRONT": "../nuscenes/" + "x" * 100_000}}))
    dataset = DriveLM(tmp_path)
    assert "1 of 1 images are missing" in (message := fails(dataset.check)) and len(message) < 1000
    assert "File name too long" in (message := fails(lambda: dataset[0])) and len(message) < 1000
