import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
from prune2drive.minidrive.questions import LETTERS, VERSION, VERSIONS
from prune2drive.minidrive.render import render
from prune2drive.minidrive.scene import DIFFICULTIES, SPLITS, make_scene
from prune2drive.minidrive.vocabulary import VEHICLES
from prune2drive.sample import IMAGE_MARKER

FIRST_SCENE = [
    ("black pedestrian", "<c1,CAM_FRONT,500.0,506.2>", None),
    ("red pedestrian", "<c2,CAM_FRONT,1100.0,393.8>", None),
    ("cone", "<c3,CAM_FRONT,1300.0,393.8>", None),
    ("black car", "<c4,CAM_FRONT,700.0,393.8>", "Going ahead"),
    ("light", "<c9,CAM_FRONT,700.0,168.8>", "Red"),
    ("yellow cyclist", "<c1,CAM_FRONT_LEFT,500.0,506.2>", None),
    ("cone", "<c1,CAM_FRONT_RIGHT,1100.0,618.8>", None),
    ("blue pedestrian", "<c2,CAM_FRONT_RIGHT,900.0,393.8>", None),
    ("black pedestrian", "<c3,CAM_FRONT_RIGHT,300.0,281.2>", None),
    ("green pedestrian", "<c4,CAM_FRONT_RIGHT,1100.0,281.2>", None),
    ("cone", "<c1,CAM_BACK,700.0,618.8>", None),
    ("green pedestrian", "<c2,CAM_BACK,500.0,506.2>", None),
    ("cone", "<c3,CAM_BACK,700.0,393.8>", None),
    ("barrier", "<c1,CAM_BACK_LEFT,500.0,731.2>", None),
    ("blue pedestrian", "<c2,CAM_BACK_LEFT,1500.0,393.8>", None),
    ("yellow cyclist", "<c1,CAM_BACK_RIGHT,500.0,618.8>", None),
    ("black truck", "<c2,CAM_BACK_RIGHT,700.0,393.8>", "Stopped"),
]


def scenes(difficulty="standard", count=60):
    return [make_scene("val", index, difficulty) for index in range(count)]


def digest(dataset, index):
    sample = dataset[index]
    pixels = b"".join(image.tobytes() for image in sample.images.values())
    return sample.id, sample.question, sample.reference, sample.objects, hashlib.sha256(pixels).hexdigest()


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_a_sample_depends_on_split_difficulty_and_index_alone(difficulty):
    forwards, backwards = MiniDrive("val", difficulty, size=30), MiniDrive("val", difficulty, size=60)
    expected = [digest(forwards, index) for index in range(0, 30, 7)]
    assert [digest(backwards, index) for index in range(28, -1, -7)] == expected[::-1]


def test_scenes_and_questions_never_change():
    """Every published score depends on them."""
    scene = make_scene("test", 0)
    objects = [(obj.name, obj.tag, obj.status) for obj in scene.objects]
    assert objects == FIRST_SCENE
    assert MiniDrive(size=300, version=1).fingerprint == "ceb9f8d9827570f8"
    assert MiniDrive(size=300).fingerprint == "b872ca190404e1c5"


def test_splits_and_difficulties_share_no_scene():
    seen = Counter(
        tuple(obj.box for obj in make_scene(split, index, difficulty).objects)
        for split in SPLITS
        for difficulty in DIFFICULTIES
        for index in range(50)
    )
    assert max(seen.values()) == 1


def test_samples_are_drivelm_shaped():
    dataset = MiniDrive("val", size=100)
    for index in range(0, 100, 9):
        sample = dataset[index]
        assert sample.id == dataset.ids[index] == f"{sample.scene}_{sample.frame}_{index % PER_FRAME}"
        assert sample.id.count("_") == 2
        assert sample.question == dataset.question(index)
        assert sample.kind == dataset.row(index).kind == dataset.kind(index)
        assert sample.cameras == CAMERAS
        assert sample.prompt.count(IMAGE_MARKER) == len(CAMERAS) and sample.prompt.endswith(sample.question)
        assert {image.size for image in sample.images.values()} == {(112, 112)}
        assert all(
            0 <= box.box[0] < box.box[2] <= 112 and 0 <= box.box[1] < box.box[3] <= 112 for box in sample.objects
        )
    assert len(set(dataset.ids)) == 100
    assert {tag for index in range(PER_FRAME) for tag in dataset[index].tags} == {0, 1, 2, 3}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_objects_are_told_apart_by_their_c_tags_and_looks(difficulty):
    for scene in scenes(difficulty):
        tags = [obj.tag for obj in scene.objects]
        assert len(set(tags)) == len(tags)
        for objects in scene.by_camera.values():
            looks = [obj.name for obj in objects if obj.colour]
            assert len(set(looks)) == len(looks)
            assert [obj.number for obj in objects] == list(range(1, len(objects) + 1))
            if len(objects) > 1:
                assert objects[0].box[3] > objects[1].box[3] + 0.05
        assert scene.by_camera["CAM_FRONT"]


def test_answers_agree_with_the_scene():
    dataset = MiniDrive("val", size=60 * PER_FRAME)
    for at, scene in enumerate(scenes()):
        by_kind = {}
        for index in range(at * PER_FRAME, (at + 1) * PER_FRAME):
            by_kind[dataset.kind(index)] = dataset[index].question, dataset[index].reference
        lead = scene.by_camera["CAM_FRONT"][0]
        assert by_kind["important"][1] == f"There is a {lead.name} at {lead.tag}."
        if "status" in by_kind:
            question, answer = by_kind["status"]
            obj = next(obj for obj in scene.objects if obj.tag in question)
            assert obj.kind in VEHICLES
            assert f"{answer}. {obj.status}." in question
        question, answer = by_kind["camera"]
        shown = {obj.camera for obj in scene.objects if question.endswith(f" {obj.name}?")}
        assert shown == {answer.rstrip(".")}
        assert by_kind["behavior"][1] == LETTERS[[0, -1, 1].index(scene.bend)]


def test_no_answer_is_given_away_by_its_frequency():
    dataset = MiniDrive("train", size=4000)
    answers = defaultdict(Counter)
    for index in range(len(dataset)):
        _, questions = dataset._clip_at(index // PER_FRAME)
        answers[questions[index % PER_FRAME].kind][questions[index % PER_FRAME].reference] += 1
    assert set(answers) == set(VERSIONS[VERSION])
    majority = {kind: max(counts.values()) / sum(counts.values()) for kind, counts in answers.items()}
    assert all(share < 0.6 for share in majority.values()), majority
    assert answers["exist"]["Yes."] == pytest.approx(answers["exist"]["No."], rel=0.2)


def test_a_higher_resolution_shows_the_same_scene():
    small, large = (MiniDrive("val", resolution=side, size=10)[0] for side in (112, 448))
    assert (small.question, small.reference) == (large.question, large.reference)
    for camera in CAMERAS:
        shrunk = np.asarray(large.images[camera].reduce(4)).astype(int)
        assert abs(shrunk - np.asarray(small.images[camera])).mean() < 8


def test_fewer_cameras_can_be_shown():
    sample = MiniDrive("val", cameras=["CAM_BACK"], size=10)[0]
    assert sample.cameras == ("CAM_BACK",)
    assert {box.camera for box in sample.objects} <= {"CAM_BACK"}


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(1, 300), st.integers(0, 2**32), st.sampled_from(["search", "val"]))
def test_a_random_sample_of_a_split(count, seed, split):
    whole, part = MiniDrive(split), MiniDrive(split, size=3, sample=count, seed=seed)
    assert len(part) == len(part.ids) == count
    places = [whole.ids.index(name) for name in part.ids]
    assert places == sorted(set(places))
    for index in {0, count // 2, count - 1}:
        for ask in (MiniDrive.question, MiniDrive.frame, MiniDrive.kind):
            assert ask(part, index) == ask(whole, places[index])
    again = MiniDrive(split, sample=count, seed=seed)
    assert (again.ids, again.fingerprint) == (part.ids, part.fingerprint)


def test_samples_follow_their_seed_and_cover_the_split():
    whole, drawn, other = MiniDrive("val"), *(MiniDrive("val", sample=200, seed=seed) for seed in (0, 1))
    assert drawn.ids != other.ids and drawn.fingerprint != other.fingerprint
    assert whole.ids.index(drawn.ids[-1]) > 2160 and Counter(map(drawn.kind, range(200))).keys() == set(
        VERSIONS[VERSION]
    )
    assert digest(drawn, 150) == digest(whole, whole.ids.index(drawn.ids[150]))
    everything = MiniDrive("val", sample=len(whole), seed=3)
    assert everything.ids == whole.ids and everything.fingerprint == whole.fingerprint


def test_frames_are_drawn_with_all_of_their_questions():
    whole, drawn, other = MiniDrive("val"), *(MiniDrive("val", frames=20, seed=seed) for seed in (0, 1))
    asked = Counter(map(drawn.frame, range(len(drawn))))
    assert asked.keys() != Counter(map(other.frame, range(len(other)))).keys()
    assert len(asked) == 20 and set(asked.values()) == {PER_FRAME}
    assert drawn.ids == [name for name in whole.ids if name in set(drawn.ids)]
    assert MiniDrive("val", frames=200).ids == whole.ids


@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"split": "dev"}, "split=dev"),
        ({"difficulty": "hard"}, "difficulty=hard"),
        ({"size": 0}, "size=0"),
        ({"split": "val", "sample": 0}, "sample=0: MiniDrive's val split has 2400 questions; choose from 1 to 2400"),
        ({"split": "val", "sample": 2401}, "sample=2401"),
        ({"sample": 1.5}, "sample=1.5"),
        ({"split": "val", "frames": 201}, "frames=201: MiniDrive's val split has 200 frames; choose from 1 to 200"),
        ({"sample": 10, "frames": 1}, "dataset.sample and dataset.frames are both set"),
        ({"resolution": 5}, "resolution=5: use a whole number, 28 or more"),
        ({"resolution": 56.0}, "resolution=56.0"),
        ({"resolution": 5000}, "resolution=5000: use at most 4096"),
        ({"cameras": ["CAM_UP"]}, "CAM_UP"),
        ({"cameras": []}, "at least one"),
    ],
)
def test_a_wrong_argument_is_named(arguments, named):
    with pytest.raises(InputError, match=named) as raised:
        MiniDrive(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("index", [-1, 20, 10**9])
def test_an_index_out_of_range_is_named(index):
    dataset = MiniDrive("val", size=20)
    for ask in (dataset.__getitem__, dataset.question, dataset.kind):
        with pytest.raises(InputError, match="questions 0 to 19"):
            ask(index)


def test_the_patches_of_an_object_lie_on_it():
    for scene in scenes("dense", 20):
        owner = scene.patch_owners((8, 8))
        for index, obj in enumerate(scene.objects):
            columns, rows = np.unravel_index(np.flatnonzero(owner[CAMERAS.index(obj.camera)] == index), (8, 8))[::-1]
            assert ((columns + 1) / 8 > obj.box[0]).all() and (columns / 8 < obj.box[2]).all()
            assert ((rows + 1) / 8 > obj.box[1]).all() and (rows / 8 < obj.box[3]).all()


def test_pictures_differ_between_cameras_and_scenes():
    pictures = {render(scene, camera, 112) for scene in scenes(count=5) for camera in CAMERAS}
    assert len(pictures) == 5 * len(CAMERAS)
