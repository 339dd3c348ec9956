"""What version 2 asks besides, and scenes that look like photographs."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
from prune2drive.minidrive import photo
from prune2drive.minidrive.dataset import MiniDrive, photograph
from prune2drive.minidrive.questions import VERSIONS
from prune2drive.minidrive.scene import make_scene
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.vocabulary import PLURALS

SCENES = [
    make_scene("val", index, difficulty) for difficulty in ("standard", "photo", "crowded") for index in range(60)
]


def asked(kind, difficulty="standard", frames=200):
    dataset = MiniDrive("val", difficulty, version=2, size=frames * len(VERSIONS[2]))
    for index in range(VERSIONS[2].index(kind), len(dataset), len(VERSIONS[2])):
        if dataset.kind(index) == kind:
            scene, question = dataset._ask(index)
            yield scene, question


def test_the_first_questions_are_those_of_version_one():
    one, two = (MiniDrive("val", version=version, size=3 * len(VERSIONS[version])) for version in (1, 2))
    for frame in range(3):
        ours = [two.question(frame * 12 + at) for at in range(12)]
        assert ours[:10] == [one.question(frame * 10 + at) for at in range(10)]
    assert len(MiniDrive("test", version=2)) == 400 * 12 and len(MiniDrive("test", version=1)) == 400 * 10
    with pytest.raises(InputError, match="dataset.version=3: choose from 1, 2"):
        MiniDrive(version=3)


def test_which_of_two_cameras_shows_more():
    answers = Counter()
    singular = {plural: kind for kind, plural in PLURALS.items()}
    for scene, question in asked("compare"):
        kind, first, second = re.fullmatch(r"Which camera shows more (\w+), (\w+) or (\w+)\?", question.text).groups()
        counts = [sum(obj.kind == singular[kind] for obj in scene.by_camera[camera]) for camera in (first, second)]
        right = "None" if counts[0] == counts[1] else (first, second)[counts[1] > counts[0]]
        assert question.reference == f"{right}." and any(counts)
        assert {obj.camera for obj in question.subjects} <= {first, second} and len(question.subjects) == sum(counts)
        answers["neither" if right == "None" else "first" if right == first else "second"] += 1
    assert max(answers.values()) < 0.45 * answers.total(), "neither place nor equality gives the answer away"


def test_the_smallest_object_is_described():
    looks = Counter()
    for scene, question in asked("small", "photo"):
        (obj,) = question.subjects
        areas = [
            (other.box[2] - other.box[0]) * (other.box[3] - other.box[1]) for other in scene.objects if other.colour
        ]
        assert (obj.box[2] - obj.box[0]) * (obj.box[3] - obj.box[1]) == min(areas)
        assert obj.tag in question.text and question.reference == f"{obj.name.capitalize()}."
        looks[question.reference] += 1
    assert max(looks.values()) < 0.2 * looks.total()


def test_the_tokenizer_knows_every_word():
    tokenizer = build_tokenizer()
    for kind in ("compare", "small"):
        for _, question in asked(kind, frames=40):
            for text in (question.text, question.reference):
                assert tokenizer.unk_token_id not in tokenizer(text).input_ids
            assert tokenizer.decode(tokenizer(question.reference).input_ids) == question.reference


@pytest.mark.parametrize("scene", SCENES[60:], ids=lambda scene: scene.name)
def test_objects_hide_little_of_each_other(scene):
    for camera in CAMERAS:
        boxes = [obj.box for obj in scene.objects if obj.camera == camera]
        for at, (x0, y0, x1, y1) in enumerate(boxes):
            for a0, b0, a1, b1 in boxes[:at]:
                common = max(0, min(x1, a1) - max(x0, a0)) * max(0, min(y1, b1) - max(y0, b0))
                assert common <= 0.3 * min((x1 - x0) * (y1 - y0), (a1 - a0) * (b1 - b0)) + 1e-12
            for left, _, right, _ in photo.foreground(scene, camera):
                assert min(right, x1) - max(left, x0) <= 0.35 * (x1 - x0)


def test_photographs_are_harder_to_see_in():
    """Smaller objects, some behind others, textured ground, and less contrast far away."""
    areas, overlaps = defaultdict(list), Counter()
    for scene in SCENES:
        for obj in scene.objects:
            areas[scene.is_photo].append((obj.box[2] - obj.box[0]) * (obj.box[3] - obj.box[1]))
        for one in scene.objects:
            for other in scene.objects:
                if one is not other and one.camera == other.camera:
                    wide, high = (
                        min(one.box[2 + at], other.box[2 + at]) - max(one.box[at], other.box[at]) for at in (0, 1)
                    )
                    overlaps[scene.is_photo] += wide > 0 and high > 0
    assert np.quantile(areas[True], 0.1) < 1 / 64 / 2, "a tenth of the objects is smaller than half a token"
    assert np.quantile(areas[True], 0.1) < np.quantile(areas[False], 0.1) / 2
    assert overlaps[True] > 20 and overlaps[False] == 0


def test_a_photograph_is_the_same_each_time_and_rough_where_a_drawing_is_flat():
    scene = make_scene("val", 0, "photo")
    drawn = make_scene("val", 0, "dense")
    for camera in CAMERAS[:2]:
        one, again = (np.asarray(photograph(scene, camera)).astype(int) for _ in range(2))
        assert (one == again).all() and one.shape == (112, 112, 3)
        coarse = one.reshape(14, 8, 14, 8, 3).mean(axis=(1, 3))
        flat = np.asarray(photograph(drawn, camera)).astype(int).reshape(14, 8, 14, 8, 3).mean(axis=(1, 3))
        assert coarse[0].std(axis=0).mean() > 2 * flat[0].std(axis=0).mean(), "the sky above all buildings"


@given(st.sampled_from(SCENES), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_a_patch_belongs_to_the_object_that_covers_most_of_it_on_grids_of_any_shape(scene, grid):
    owners = scene.patch_owners(grid).reshape(len(CAMERAS), *grid)
    for camera, name in enumerate(CAMERAS):
        for row, column in np.ndindex(*grid):
            covered = {-1: 0.15}
            for index, thing in enumerate(scene.objects):
                x0, y0, x1, y1 = thing.box
                wide = max(0, min(x1, (column + 1) / grid[1]) - max(x0, column / grid[1])) * grid[1]
                high = max(0, min(y1, (row + 1) / grid[0]) - max(y0, row / grid[0])) * grid[0]
                covered[index] = wide * high if thing.camera == name else 0
            owner = owners[camera, row, column]
            assert covered[owner] >= max(covered.values()) - 1e-9
