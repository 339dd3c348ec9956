"""What a training is shown of clips: images of every time, questions about them, and where their answers lie."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from prune2drive.cameras import CAMERAS, camera_of, clip_views, time_of
from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture
from prune2drive.minidrive.clip import make_clip, middle
from prune2drive.minidrive.clip_questions import CLIP_KINDS
from prune2drive.minidrive.questions import QUESTION_KINDS
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.training import module as training
from prune2drive.minidrive.training.batches import PREFIX, PackedMiniDrive
from prune2drive.minidrive.training.losses import attention_supervision_loss
from prune2drive.minidrive.training.module import MiniDriveTraining
from prune2drive.minidrive.training.recipe import Recipe
from prune2drive.minidrive.training.schedule import AUXILIARY_LOSSES, PHASES, Schedule
from prune2drive.minidrive.training.targets import ATTRIBUTES, CHANGES, IGNORED

VIEWS = clip_views(CAMERAS, 2)
SIZES = Architecture(
    resolution=28, layers=4, vision_width=32, vision_layers=1, vision_heads=1, width=32, heads=2, mlp=32
)
RECIPE = Recipe(24, {"standard": 1.0}, dict.fromkeys(QUESTION_KINDS, 1.0), scenes=2, times=2)


def packed():
    return PackedMiniDrive(lambda: (), build_tokenizer())


def asked(batch):
    """Yields for each question its scene, its words with those of the answer, and the evidence by view."""
    tokenizer = build_tokenizer()
    for number, (scene, place) in enumerate(batch["targets"]["answer_start"].T.tolist()):
        own = batch["segment_ST"][scene] == batch["segment_ST"][scene, place]
        text = tokenizer.decode(batch["ids_ST"][scene][own], skip_special_tokens=True)
        yield scene, text, batch["targets"]["evidence"][number].view(len(VIEWS), -1)


def test_patches_have_the_attributes_of_what_their_view_shows():
    batch, moved = packed().batch(0, replace(RECIPE, scenes=6)), 0
    words = {name: indices.view(6, len(VIEWS), 64) for name, indices in batch["attributes_IN"].items()}
    for slot in range(6):
        clip = make_clip("train", slot, "standard", 2)
        for at, view in enumerate(VIEWS):
            scene, camera = clip.scenes[time_of(view)], camera_of(view)
            owners = scene.patch_owners((8, 8))[CAMERAS.index(camera)]
            columns = [scene.objects[owner].cell[0] if owner >= 0 else IGNORED for owner in owners]
            assert words["column"][slot, at].tolist() == columns
            assert (words["camera"][slot, at] == CAMERAS.index(camera)).all()
        moved += len(clip.moved)
    assert moved, "no column would change with time"


def test_evidence_lies_where_and_when_the_asked_object_is_seen():
    batch, seen = packed().batch(0, RECIPE), Counter()
    clips = [make_clip("train", slot, "standard", 2) for slot in range(2)]
    for scene, text, evidence in asked(batch):
        clip, shown = clips[scene], {VIEWS[at] for at in evidence.any(1).nonzero().flatten().tolist()}
        times = {time_of(view) for view in shown}
        answer = text.rsplit("?", 1)[1].strip().lower().rstrip(".")
        if "visible in the" in text and answer != "none":
            gone = "first image, but not in the current" in text
            (obj,) = [each for each in (clip.left if gone else clip.came) if each.name in answer]
            assert times <= {0 if gone else 1} and {camera_of(view) for view in shown} <= {obj.camera}
            seen["gone" if gone else "new"] += bool(shown)
        if "How many objects are moving" in text:
            for time in (0, 1):
                for obj in (now if time else past for now, past in clip.moved):
                    at = VIEWS.index(f"{obj.camera}@{time}")
                    columns = set((evidence[at].nonzero().flatten() % 8).tolist())
                    assert not columns or int(middle(obj) * 8) in columns
                    seen[f"moving at {time}"] += bool(columns)
    assert all(seen[what] for what in ("gone", "new", "moving at 0", "moving at 1")), seen


def test_changes_are_told_of_the_last_image_by_what_was_and_is_there():
    batch, told = packed().batch(0, replace(RECIPE, scenes=6, times=3, questions=0)), Counter()
    views = clip_views(CAMERAS, 3)
    for slot, of_clip in enumerate(batch["change"].view(6, len(views), 64)):
        clip = make_clip("train", slot, "standard", 3)
        first, now = (
            {(obj.camera, obj.name): obj for obj in clip.scenes[time].objects if obj.colour} for time in (0, 2)
        )
        for view, words in zip(views, of_clip.tolist(), strict=True):
            before, after = (clip.scenes[time].patch_owners((8, 8))[CAMERAS.index(camera_of(view))] for time in (0, 2))
            for was, owner, word in zip(before, after, words, strict=True):
                expected = None
                if time_of(view) == 2 and owner >= 0:
                    obj = clip.now.objects[owner]
                    past = first.get((obj.camera, obj.name), obj if not obj.colour else None)
                    way = middle(obj) - middle(past) if past else None
                    expected = "current" if way is None else "left" if way < 0 else "right" if way > 0 else "still"
                elif time_of(view) == 2 and was >= 0:
                    obj = clip.scenes[0].objects[was]
                    expected = "moving" if (obj.camera, obj.name) in now or not obj.colour else "first"
                assert (CHANGES[word] if word != IGNORED else None) == expected
                told[expected] += 1
    assert told.keys() == {*CHANGES, None}


def test_first_sight_is_where_the_object_of_a_token_was():
    batch, far = packed().batch(0, replace(RECIPE, scenes=4, questions=0)), 0
    assert "targets" not in batch and (batch["segment_ST"] == PREFIX).all()
    (clips, tokens), evidence = batch["first_sight"]
    found = dict(zip(zip(clips.tolist(), tokens.tolist(), strict=True), evidence.view(-1, len(VIEWS), 64), strict=True))
    for slot in range(4):
        clip = make_clip("train", slot, "standard", 2)
        for at, view in enumerate(VIEWS):
            owners = [scene.patch_owners((8, 8))[CAMERAS.index(camera_of(view))] for scene in clip.scenes]
            for patch, owner in enumerate(owners[1].tolist()):
                seen = found.pop((slot, at * 64 + patch), None)
                if time_of(view) == 0 or owner < 0 or clip.now.objects[owner] in clip.came:
                    assert seen is None
                elif seen is not None:
                    assert set(seen.nonzero()[:, 0].tolist()) == {at - 1}
                    shown = clip.scenes[0].objects[owners[0][seen[at - 1]][0]]
                    assert (shown.name, set(owners[0][seen[at - 1]])) == (
                        clip.now.objects[owner].name,
                        {clip.scenes[0].objects.index(shown)},
                    )
                    far += owners[0][patch] != clip.scenes[0].objects.index(shown)
    assert not found and far, "nothing has moved"


@pytest.mark.parametrize("phase", PHASES)
def test_a_step_teaches_what_its_phase_does(monkeypatch, phase):
    torch.manual_seed(0)
    lengths, supervised = dict.fromkeys(PHASES, 0) | {phase: 4}, []
    weights = dict.fromkeys(AUXILIARY_LOSSES, 1.0) | {"change": 2.0, "track": 0.5}
    schedule = Schedule(*lengths.values(), dict.fromkeys(PHASES, 1), weights)
    recipe = replace(RECIPE, resolution=28, scenes=1, questions=0 if phase == "token_supervision" else 4)
    module, logged = MiniDriveTraining(SIZES, schedule, recipe, 8), {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    module.log_dict = logged.update
    monkeypatch.setattr(MiniDriveTraining, "global_step", 0)

    def supervise(probe, query, *others):
        supervised.append((probe.layer, query))
        return attention_supervision_loss(probe, query, *others)

    monkeypatch.setattr(training, "attention_supervision_loss", supervise)
    batch = PackedMiniDrive(lambda: (), module.tokenizer).batch(3, recipe)
    loss = module.training_step(batch, 0)
    loss.backward()
    taught = {name for name, weight in module.model.named_parameters() if weight.grad is not None}
    assert any("vision_tower" in name for name in taught) == (phase == "fine_tuning")
    layers = {name.split("layers.")[1].split(".")[0] for name in taught if "language_model.layers" in name}
    assert layers == ({"0", "1"} if phase == "token_supervision" else {"0", "1", "2", "3"})
    assert ("train/track" in logged and "train/token_change" in logged) == (phase != "fine_tuning")
    assert ("train/answers" in logged) == (phase != "token_supervision") and loss.isfinite() and loss > 0
    if phase == "token_supervision":
        assert float(loss) == pytest.approx(
            2 * float(logged["train/token_change"]) + 0.5 * logged["train/track"], rel=1e-5
        )
        ((layer, (scene, place)),) = supervised
        visual = (batch["ids_ST"][0] == module.model.config.image_token_id).nonzero().view(len(VIEWS), -1)[:, :-1]
        assert layer == 1 and torch.equal(place, visual.flatten()[batch["first_sight"][0][1]]) and not scene.any()


def test_questions_are_of_the_kinds_and_about_the_cameras_that_are_asked_for():
    recipe = replace(RECIPE, clip_kinds={"direction": 3.0, "moving_count": 1.0}, other_views=1.0, scenes=1)
    texts, shown = [], set()
    for step in range(12):
        _, views = recipe.of_step(step)
        cameras = list(dict.fromkeys(map(camera_of, views)))
        assert views == clip_views(cameras, 2)
        batch = packed().batch(step, recipe)
        assert batch["pixels_SC3HW"].shape[1] == len(views) and len(batch["targets"]["answer_start"].T) == 24
        shown.add(len(cameras))
        subjects = batch["targets"]["subject"]["camera"]
        assert {CAMERAS[camera] for camera in subjects[subjects != IGNORED].tolist()} <= set(cameras)
        texts += [build_tokenizer().decode(ids, skip_special_tokens=True) for ids in batch["ids_ST"]]
    assert len(shown) > 2
    words = " ".join(texts)
    assert words.count("to the left or to the right") > words.count("How many objects are moving") > 0
    assert "visible" not in words


def test_a_kind_that_the_shown_cameras_cannot_answer_is_replaced():
    """Of two cameras, none is the front one that traffic lights are asked of, or none has what moves."""
    for kinds in ({"kinds": {"light": 1.0}, "times": 1}, {"clip_kinds": {"direction": 1.0}}):
        recipe = replace(RECIPE, other_views=1.0, scenes=1, questions=2, **kinds)
        words = ""
        for step in range(8):
            rows = packed().batch(step, recipe)["ids_ST"]
            words += " ".join(build_tokenizer().decode(ids, skip_special_tokens=True) for ids in rows)
        assert "Is there a" in words and ("traffic light" in words or "to the left or to" in words)


def test_asked_attributes_are_in_the_question():
    batch = packed().batch(1, RECIPE)
    colours = 0
    for number, (_, text, _) in enumerate(asked(batch)):
        words = {name: found[number].item() for name, found in batch["targets"]["asked"].items()}
        if words["colour"] != IGNORED:
            assert f"{ATTRIBUTES['colour'][words['colour']]} {ATTRIBUTES['kind'][words['kind']]}" in text
            colours += "moving" in text
    assert colours


def test_validation_has_a_score_for_each_kind_of_question(monkeypatch):
    batch = packed().batch(0, replace(RECIPE, split="val"))
    logged = {}
    labels = batch["labels_ST"]
    predicted = labels.clamp(0).clone()
    predicted[0, batch["segment_ST"][0] == list(CLIP_KINDS).index("new")] = 0
    module = SimpleNamespace(
        recipe=replace(RECIPE, split="val"),
        encode_images=lambda pixels: None,
        decode=lambda *_: SimpleNamespace(last_hidden_state=torch.nn.functional.one_hot(predicted)),
        model=SimpleNamespace(lm_head=lambda hidden: hidden),
        log=lambda name, value, **_: logged.update({name: float(value)}),
    )
    MiniDriveTraining.validation_step(module, batch, 0)
    assert logged == {f"val/{kind}": 1.0 for kind in CLIP_KINDS} | {"val/new": 0.5, "val/exact_match": 15 / 16}


def test_a_recipe_that_cannot_be():
    with pytest.raises(InputError, match="recipe.clip_kinds=count: choose from moving, is_moving"):
        replace(RECIPE, clip_kinds={"count": 1.0})
    with pytest.raises(InputError, match="recipe.times=0: "):
        replace(RECIPE, times=0)
