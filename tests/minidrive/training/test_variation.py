"""What a recipe varies from step to step, so that answers do not come to hang on it."""

import math
import re
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS, spoken_name
from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture
from prune2drive.minidrive.questions import QUESTION_KINDS
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.training.batches import LONGEST, PREFIX, PackedMiniDrive, positions
from prune2drive.minidrive.training.module import MiniDriveTraining
from prune2drive.minidrive.training.recipe import SPACINGS, Recipe
from prune2drive.minidrive.training.schedule import AUXILIARY_LOSSES, PHASES, Schedule
from prune2drive.pruning.surgery.resized_images import resize_images

RECIPE = Recipe(
    questions=6,
    difficulties={"photo": 1.0},
    kinds=dict.fromkeys(QUESTION_KINDS, 1.0),
    scenes=2,
    version=2,
    resolution=28,
    other_resolutions={42: 0.3},
    other_shapes={"1x3": 0.2},
    other_views=0.5,
    spacing=dict.fromkeys(SPACINGS, 1.0),
)
SIZES = Architecture(
    resolution=28, layers=4, vision_width=32, vision_layers=1, vision_heads=1, width=32, heads=2, mlp=32
)
PLAIN = replace(RECIPE, other_resolutions={}, other_shapes={}, other_views=0.0)


def batch(step, recipe=RECIPE):
    return PackedMiniDrive(lambda: (), build_tokenizer()).batch(step, recipe)


def test_steps_differ_in_resolution_and_views_as_often_as_asked():
    drawn = [RECIPE.of_step(step) for step in range(400)]
    assert [recipe.resolution for recipe, _ in drawn].count(42) == pytest.approx(120, abs=35)
    assert [recipe.grid for recipe, _ in drawn].count((1, 3)) == pytest.approx(80, abs=30)
    views = [cameras for _, cameras in drawn]
    assert [cameras == CAMERAS for cameras in views].count(True) == pytest.approx(200, abs=40)
    assert {len(cameras) for cameras in views} == {2, 3, 4, 5, 6} and all(set(each) <= set(CAMERAS) for each in views)
    assert all(len(set(cameras)) == len(cameras) for cameras in views)
    assert Counter(camera for cameras in views for camera in cameras).keys() == set(CAMERAS)
    assert drawn[7] == RECIPE.of_step(7) and drawn[7][0].of_step(7) == (drawn[7][0], CAMERAS)
    assert {PLAIN.of_step(step)[1] for step in range(9)} == {CAMERAS} and PLAIN.of_step(3)[0] == PLAIN


def test_images_are_made_smaller_as_by_the_pruner_resize():
    full, small = (batch(0, replace(PLAIN, resolution=112, shape=shape)) for shape in ("", "2x3"))
    assert small["pixels_SC3HW"].shape == (2, 6, 3, 28, 42)
    seen = []
    tower = SimpleNamespace(config=SimpleNamespace(patch_size=14), forward=lambda pixels, **_: seen.append(pixels))
    with ExitStack() as undo, suppress(AttributeError):
        resize_images(tower, lambda images, tokens: [(2, 3)] * images, undo)
        tower.forward(full["pixels_SC3HW"].flatten(0, 1).float())
    assert (small["pixels_SC3HW"].flatten(0, 1) - seen[0].clamp(0, 255)).abs().max() <= 0.5 + 1e-3


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.integers(0, 2**20), st.sampled_from(list(SPACINGS)))
def test_positions_never_fall_and_words_follow_one_another(is_image, seed, name):
    drawn = positions(is_image, {name: 1.0}, SceneRandom(seed))
    assert len(drawn) == len(is_image) + 1
    assert all(0 <= here <= there for here, there in pairwise(drawn)) and drawn[-1] > drawn[-2]
    steps = [there - here for (here, there), visual in zip(pairwise(drawn[:-1]), is_image, strict=False) if not visual]
    assert set(steps) <= {1}
    if name == "even":
        assert drawn == list(range(len(drawn)))


def test_spacings_leave_gaps_or_crowd():
    tokens = [True] * 400
    spans = {
        name: [positions(tokens, {name: 1.0}, SceneRandom(seed)) for seed in range(40)] for name in ("gaps", "dense")
    }
    long = [drawn[-1] - drawn[0] for drawn in spans["gaps"]]
    short = [drawn[-1] - drawn[0] for drawn in spans["dense"]]
    assert 300 < min(long) and max(long) > 2000 and max(short) < 500 and min(short) < 100
    assert len({drawn[0] for drawn in spans["gaps"]}) > 30, "a prompt may begin anywhere"
    assert max(drawn[-1] for drawn in spans["gaps"]) < 2 * LONGEST


def test_questions_are_about_what_is_shown():
    tokenizer, asked = build_tokenizer(), 0
    for step in range(40):
        _, cameras = RECIPE.of_step(step)
        made = batch(step)
        assert made["pixels_SC3HW"].shape[1] == len(cameras)
        tokens = made["pixels_SC3HW"][0, 0, 0].numel() // 14**2
        assert made["targets"]["evidence"].shape[1] == len(cameras) * tokens
        for scene in range(2):
            segments, ids = made["segment_ST"][scene], made["ids_ST"][scene]
            prefix = tokenizer.decode(ids[segments == PREFIX])
            assert [name for name in re.findall(r"(\w+(?: \w+)?) view", prefix)][-len(cameras) :]
            for segment in range(6):
                text = tokenizer.decode(ids[segments == segment], skip_special_tokens=True)
                assert set(re.findall(r"CAM_\w+", text)) <= set(cameras)
                if spoken := re.search(r"to the (front|back)( left| right)? of the ego vehicle", text):
                    assert spoken[1] + (spoken[2] or "") in map(spoken_name, cameras)
                if "traffic light" in text or "behavior" in text or "possible action" in text:
                    assert "CAM_FRONT" in cameras
                asked += 1
    assert asked == 40 * 2 * 6


def test_evidence_lies_on_the_asked_object_in_whatever_place_its_camera_is():
    for step in range(30):
        recipe, cameras = RECIPE.of_step(step)
        made = batch(step)
        tokens = math.prod(recipe.grid)
        camera_of = made["targets"]["subject"]["camera"]
        for evidence, camera in zip(made["targets"]["evidence"], camera_of.tolist(), strict=True):
            if camera >= 0 and evidence.any():
                assert set((evidence.nonzero().flatten() // tokens).tolist()) == {cameras.index(CAMERAS[camera])}
        shown = made["attributes_IN"]["camera"].view(2, len(cameras), -1)
        assert (shown == torch.tensor([CAMERAS.index(camera) for camera in cameras])[:, None]).all()


@pytest.mark.slow
def test_a_step_of_each_kind_trains():
    schedule = Schedule(1, 6, 1, dict.fromkeys(PHASES, 2), dict.fromkeys(AUXILIARY_LOSSES, 1.0))
    module = MiniDriveTraining(SIZES, schedule, RECIPE, 8)
    module.log, seen = lambda *values, **options: None, set()
    module.log_dict = lambda *values, **options: None
    MiniDriveTraining.global_step, before = 2, MiniDriveTraining.global_step
    try:
        for step in range(40):
            recipe, cameras = RECIPE.of_step(step)
            kind = len(cameras) < 6, recipe.grid
            if kind not in seen:
                assert module.training_step(batch(step), 0).isfinite()
            seen.add(kind)
    finally:
        MiniDriveTraining.global_step = before
    assert len(seen) == 6


def test_validation_shows_all_cameras_at_full_size_with_unbroken_positions(monkeypatch):
    schedule = Schedule(1, 1, 1, dict.fromkeys(PHASES, 2), dict.fromkeys(AUXILIARY_LOSSES, 1.0))
    module = MiniDriveTraining(SIZES, schedule, replace(RECIPE, other_shapes={"1x3": 0.6}), validation_scenes=48)
    monkeypatch.setattr(MiniDriveTraining, "trainer", SimpleNamespace(global_rank=0, world_size=1))
    batches = [*module.val_dataloader()]
    assert len(batches) == 6
    for made in batches:
        assert made["pixels_SC3HW"].shape == (8, 6, 3, 28, 28)
        prefix = int((made["segment_ST"][0] == PREFIX).sum())
        assert (made["position_ST"][:, :prefix] == torch.arange(prefix)).all()


def test_what_a_recipe_cannot_be():
    for changes, message in (
        ({"spacing": {"wide": 1.0}}, "recipe.spacing=wide: choose from even, gaps, dense"),
        ({"other_resolutions": {100: 0.5}}, "resolution 100: use a multiple of the patch size, 14"),
        ({"other_shapes": {3: 0.5}}, "recipe.other_shapes: 3: write rows and columns of tokens as 2x3"),
    ):
        with pytest.raises(InputError, match=message):
            replace(RECIPE, **changes)
