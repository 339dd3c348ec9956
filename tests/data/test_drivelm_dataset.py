import json
import pickle

import pytest
from helpers.drivelm_files import SHOWN, SIX, ask, conversation, draw, key_frame, scenes, write
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prune2drive.data.dataset import Dataset
from prune2drive.data.drivelm import DriveLM
from prune2drive.errors import InputError
from prune2drive.sample import ObjectBox

# --- the layouts


def test_scene_layout(tmp_path):
    objects = {
        "<c1,CAM_BACK,8.5,4.5>": {"Category": "Vehicle", "Visual_description": "Red van.", "2d_bbox": [1, 2, 3.5, 4]},
        "<c2,CAM_FRONT,1.0,1.0>": {"Category": None, "Status": None, "2d_bbox": [0, 0, 2, 2]},
    }
    frame = key_frame("f", objects, behavior=["B?"], planning=[ask("P?", tag=[1, 3])], perception=["A?", "A2?"])
    dataset: Dataset = draw(write(tmp_path, scenes(f=frame)))
    dataset.check()

    assert dataset.ids == ["s_f_0", "s_f_1", "s_f_2", "s_f_3"]
    assert [dataset.question(i) for i in range(len(dataset))] == ["A?", "A2?", "P?", "B?"]
    assert [sample.reference for sample in dataset] == ["Nothing."] * 4
    kinds = ["perception", "perception", "planning", "behavior"]
    assert [sample.kind for sample in dataset] == [dataset.row(at).kind for at in range(4)] == kinds
    assert dataset.cameras == SIX

    sample = dataset[2]
    assert (sample.id, sample.scene, sample.frame, sample.tags) == ("s_f_2", "s", "f", (1, 3))
    assert (sample.question, sample.prompt) == ("P?", SHOWN + "P?")
    assert {camera: image.getpixel((0, 0))[0] // 40 for camera, image in sample.images.items()} == {
        camera: place for place, camera in enumerate(SIX)
    }
    assert sample.objects == (
        ObjectBox("CAM_BACK", (1, 2, 3.5, 4), "Vehicle: Red van"),
        ObjectBox("CAM_FRONT", (0, 0, 2, 2), ""),
    )
    assert sample.image_sizes == dict.fromkeys(SIX, (16, 9))


def test_a_file_of_questions_alone(tmp_path):
    dataset = draw(write(tmp_path, scenes(f=key_frame(perception=[ask("A?", None), ask("B?", "")]))))
    dataset.check()
    assert [sample.reference for sample in dataset] == [None, None]


def test_conversation_layout_asks_the_same(tmp_path):
    nested = draw(write(tmp_path, scenes(f=key_frame(perception=[ask("Who?", "A van."), "Where?"]))))
    entries = [conversation("s_f_0", "<image>\nWho?"), conversation("s_f_1", "<image>\nWhere?", "There.")]
    flat = write(tmp_path, entries, "test_llama.json")

    assert flat.fingerprint == nested.fingerprint
    assert [flat[i].prompt for i in (0, 1)] == [nested[i].prompt for i in (0, 1)]
    assert (flat[0].scene, flat[0].frame, flat[0].reference, flat[1].reference) == ("s", "f", "A van.", "There.")
    assert flat[0].images.keys() == nested[0].images.keys()


@settings(max_examples=30)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["behavior", "planning", "prediction", "perception"]), st.integers(0, 3), max_size=4
        ),
        min_size=1,
        max_size=4,
    ).filter(lambda frames: any(sum(counts.values()) for counts in frames))
)
def test_every_question_has_its_official_id(tmp_path_factory, frames):
    official = {}
    content = {}
    for number, counts in enumerate(frames):
        rows = {stage: [f"{stage} {number} {i}?" for i in range(count)] for stage, count in counts.items()}
        content[f"f{number}"] = key_frame(**rows)
        stages = ("perception", "prediction", "planning", "behavior")
        for place, text in enumerate(sum((rows.get(stage, []) for stage in stages), [])):
            official[f"s_f{number}_{place}"] = text
    dataset = write(tmp_path_factory.mktemp("ids"), scenes(**content))
    assert {name: dataset.question(i) for i, name in enumerate(dataset.ids)} == official
    assert len(dataset) == len(official)


def test_the_sample(drivelm_sample):
    nested = DriveLM(drivelm_sample)
    flat = DriveLM(drivelm_sample, "test_llama.json")
    nested.check()
    answered = json.loads((drivelm_sample / "output.json").read_text())
    assert nested.file.name == "test_eval.json"
    assert nested.ids == flat.ids == [row["id"] for row in answered]
    assert nested.fingerprint == flat.fingerprint
    assert (nested[0].prompt, nested[0].reference) == (flat[0].prompt, flat[0].reference)
    assert {tag for sample in nested for tag in sample.tags} == {0, 1, 2, 3}

    train = DriveLM(drivelm_sample, "train_sample.json", cameras=["CAM_BACK", "CAM_FRONT"], sample=5, seed=3)
    for sample in train:
        assert sample.cameras == ("CAM_BACK", "CAM_FRONT")
        for thing in sample.objects:
            width, height = sample.image_sizes[thing.camera]
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert any(sample.objects for sample in train)


# --- what is shown and asked


def test_default_files_and_folders(tmp_path):
    frames = {name: scenes(f=key_frame(perception=[f"{name}?"])) for name in ("train", "val", "eval", "own")}
    for file, name in [
        ("test_eval.json", "eval"),
        ("v1_1_val_nus_q_only.json", "val"),
        ("v1_1_train_nus.json", "train"),
    ]:
        write(tmp_path, frames[name], file)
        assert DriveLM(str(tmp_path)).question(0) == f"{name}?"
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", frames["own"], "own.json")
    elsewhere = DriveLM(tmp_path, "deep/own.json", images=tmp_path / "photos")
    assert elsewhere.question(0) == "own?"
    draw(elsewhere).check()
    assert (tmp_path / "photos/samples/CAM_FRONT/f__CAM_FRONT.png").is_file()


def test_chosen_cameras(tmp_path):
    objects = {f"<c1,{camera},1.0,1.0>": {"2d_bbox": [0, 0, 1, 1]} for camera in SIX}
    content = scenes(f=key_frame(objects=objects, perception=["Who?"]))
    draw(write(tmp_path, content))
    dataset = DriveLM(tmp_path, cameras=("CAM_BACK", "CAM_FRONT"))
    assert dataset.cameras == dataset[0].cameras == ("CAM_BACK", "CAM_FRONT")
    assert "the back view and front view of" in dataset[0].prompt
    assert {thing.camera for thing in dataset[0].objects} == {"CAM_BACK", "CAM_FRONT"}
    assert DriveLM(tmp_path, cameras="CAM_BACK").cameras == ("CAM_BACK",)
    for wrong, message in [
        (["CAM_TOP"], "'CAM_TOP'.*it has CAM_FRONT, "),
        (["CAM_BACK"] * 2, "once"),
        ([], "at least"),
    ]:
        with pytest.raises(InputError, match=message):
            DriveLM(tmp_path, cameras=wrong)


def test_cameras_may_differ_between_frames(tmp_path):
    frames = {"f": key_frame("f", cameras=SIX[2:0:-1], perception=["A?"]), "g": key_frame("g", perception=["B?"])}
    dataset = draw(write(tmp_path, scenes(**frames)))
    assert set(dataset.cameras) == set(SIX)
    assert dataset[0].cameras == dataset.cameras[:2] == ("CAM_FRONT_RIGHT", "CAM_FRONT_LEFT")
    with pytest.raises(InputError, match="frame f: no image of CAM_BACK"):
        DriveLM(tmp_path, cameras=["CAM_BACK"])


@settings(max_examples=30)
@given(size=st.integers(1, 40), seed=st.integers(0, 2**32), data=st.data())
def test_subset(tmp_path_factory, size, seed, data):
    root = tmp_path_factory.mktemp("subset")
    everything = write(root, scenes(f=key_frame(perception=[f"{i}?" for i in range(size)])))
    count = data.draw(st.integers(1, size))
    subset = DriveLM(root, sample=count, seed=seed)
    places = [everything.ids.index(name) for name in subset.ids]
    assert len(places) == count and places == sorted(set(places))
    assert [subset.question(i) for i in range(count)] == [everything.question(place) for place in places]
    assert subset.ids == DriveLM(root, sample=count, seed=seed).ids


def test_subsets_of_other_seeds_differ(tmp_path):
    write(tmp_path, scenes(f=key_frame(perception=[f"{i}?" for i in range(50)])))
    assert DriveLM(tmp_path, sample=10, seed=1).ids != DriveLM(tmp_path, sample=10, seed=2).ids
    for wrong in (0, -1, 51):
        with pytest.raises(InputError, match="has 50 questions"):
            DriveLM(tmp_path, sample=wrong)


def test_fingerprint_is_of_what_is_asked(tmp_path):
    def of(name="f", question="Who?", answer="A van.", **options):
        content = scenes(**{"f": key_frame(name, perception=[ask(question, answer)])})
        return write(tmp_path, content, **options).fingerprint

    assert of() == of(answer="A bus.") == of(images=tmp_path / "elsewhere")
    assert len({of(), of(name="g"), of(question="Why?"), of(cameras=["CAM_BACK"])}) == 4


@pytest.mark.parametrize("layout", ["scenes", "conversations"])
def test_a_frame_is_decoded_once(tmp_path, monkeypatch, layout):
    content = scenes(**{name: key_frame(name, perception=["A?", "B?", "C?"], cameras=SIX[:2]) for name in "fg"})
    if layout == "conversations":
        content = [conversation(f"s_f_{number}", cameras=SIX[:2]) for number in range(3)]
    dataset = draw(write(tmp_path, content))
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file.name) or real(file))
    for sample in dataset:
        sample.images.pop("CAM_FRONT")  # a reader that spoils its mapping must not spoil the next sample
    frames = "fg" if layout == "scenes" else "f"
    assert opened == [f"{name}__{camera}.png" for name in frames for camera in SIX[:2]]


def test_survives_the_way_to_a_worker(tmp_path):
    dataset = draw(write(tmp_path, scenes(f=key_frame(perception=["A?"]))))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.ids == dataset.ids and copy[0].prompt == dataset[0].prompt
