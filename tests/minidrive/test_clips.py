"""MiniDrive's clips: what changes in them, and that questions about it are answered right."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS, camera_of, clip_views, time_of
from prune2drive.errors import InputError
from prune2drive.minidrive.clip import make_clip, middle
from prune2drive.minidrive.clip_questions import CLIP_KINDS, clip_questions
from prune2drive.minidrive.dataset import MiniDrive, photograph
from prune2drive.minidrive.scene import SPLITS, make_scene
from prune2drive.minidrive.tokenizer import UNKNOWN, build_tokenizer

FIRST = ["Yellow cyclist.", "Yes.", "To the left."]  # answers of the first clip of the test split


def looks(scene, camera):
    """What a camera shows, by name: the boxes of painted objects."""
    return {obj.name: obj.box for obj in scene.objects if obj.camera == camera and obj.colour}


@given(st.sampled_from(SPLITS), st.integers(0, 10**6), st.integers(2, 5))
def test_the_past_of_a_scene(split, index, times):
    clip, scene = make_clip(split, index, "standard", times), make_scene(split, index)
    assert clip == make_clip(split, index, "standard", times)
    assert (clip.now.objects, clip.now.key, len(clip.scenes)) == (scene.objects, scene.key, times)
    assert {each.name for each in clip.scenes} == {f"{scene.name}-x{times}"} and len(clip.moved) <= 3
    first = [(obj.camera, obj.name) for obj in clip.scenes[0].objects]
    now = [(obj.camera, obj.name) for obj in scene.objects]
    assert {(obj.camera, obj.name) for obj in clip.left} == set(first) - set(now)
    assert {(obj.camera, obj.name) for obj in clip.came} == set(now) - set(first)
    movers = {(obj.camera, obj.name) for obj, _ in clip.moved}
    for camera in CAMERAS:
        past, end = looks(clip.scenes[0], camera), looks(scene, camera)
        assert {(camera, name) for name in past.keys() & end.keys() if past[name] != end[name]} == {
            mover for mover in movers if mover[0] == camera
        }
        ways = [[looks(each, camera).get(name) for each in clip.scenes] for name in past | end]
        for way in ways:  # who is gone does not come back
            assert sum((a is None) != (b is None) for a, b in zip(way, way[1:], strict=False)) <= 1
    for obj, past in clip.moved:
        assert abs(middle(obj) - middle(past)) >= 0.15 and obj.status != "Stopped"
        way = [looks(each, obj.camera)[obj.name][0] for each in clip.scenes]
        assert np.allclose(np.diff(way), (way[-1] - way[0]) / (times - 1))


def answered(kind, text, clip):
    """The answer to a question by its words, from what the clip's cameras show."""
    camera = next((each for each in sorted(CAMERAS, key=len)[::-1] if spoken(each) in text), None)
    first, now = (looks(scene, camera) for scene in (clip.scenes[0], clip.now)) if camera else ({}, {})
    named = re.search(r"(?:the|a) (\w+ \w+) (?:to|in) the", text)
    moved = [name for name in first.keys() & now.keys() if first[name] != now[name]]
    if kind in ("moving", "gone", "new"):
        found = {"moving": moved, "gone": first.keys() - now.keys(), "new": now.keys() - first.keys()}[kind]
        return f"{found.pop().capitalize()}." if len(found) == 1 else "several" if found else "None."
    if kind == "is_moving":
        return "Yes." if named[1] in moved else "No."
    if kind == "direction":
        return f"To the {'left' if now[named[1]][0] + now[named[1]][2] < sum(first[named[1]][::2]) else 'right'}."
    if kind == "first":
        return "Yes." if named[1] in first else "No."
    if kind == "first_camera":
        (found,) = [each for each in CAMERAS if named[1] in looks(clip.scenes[0], each)]
        return f"{found}."
    moves = [looks(clip.scenes[0], each).items() ^ looks(clip.now, each).items() for each in CAMERAS]
    twice = [name for of in moves for name, count in Counter(name for name, _ in of).items() if count == 2]
    return f"{('Zero', 'One', 'Two', 'Three')[len(twice)]}."


def spoken(camera):
    return f"to the {camera[4:].lower().replace('_', ' ')} of the ego"


def test_answers_are_right_and_not_given_away():
    tokenizer, answers = build_tokenizer(), {kind: Counter() for kind in CLIP_KINDS}
    for index in range(120):
        clip = make_clip("val", index, "standard", 3)
        for question in clip_questions(clip):
            assert question.reference == answered(question.kind, question.text, clip)
            assert UNKNOWN not in tokenizer.tokenize(question.text + " " + question.reference)
            answers[question.kind][question.reference] += 1
            for obj in question.subjects:
                assert obj.camera in question.cameras
    for kind, given_ in answers.items():
        assert given_.total() >= 40 and max(given_.values()) < 0.66 * given_.total(), kind


def test_a_clip_in_the_data_set():
    dataset = MiniDrive("test", size=8, times=2, cameras=["CAM_FRONT", "CAM_BACK"])
    assert dataset.cameras == clip_views(("CAM_FRONT", "CAM_BACK"), 2)
    sample, clip = dataset[0], make_clip("test", 0, "standard", 2)
    assert sample.id == "standard-test-000000-x2_standard-test-000000-x2-0_0" and len(set(dataset.ids)) == 8
    assert (sample.frame, sample.scene) == (dataset.frame(0), clip.now.name) and sample.prompt.count("<image>") == 4
    for view, image in sample.images.items():
        drawn = photograph(clip.scenes[time_of(view)], camera_of(view))
        assert np.array_equal(np.asarray(image), np.asarray(drawn))
    plain = MiniDrive("test", size=1)[0].images["CAM_FRONT"]
    assert np.array_equal(np.asarray(sample.images["CAM_FRONT@1"]), np.asarray(plain))
    shown = Counter(box.camera for box in sample.objects)
    for view in dataset.cameras:
        scene = clip.scenes[time_of(view)]
        assert shown[view] == sum(obj.camera == camera_of(view) for obj in scene.objects)
    assert [dataset.row(index).reference for index in range(3)] == FIRST
    assert [dataset.kind(index) for index in range(8)] == list(CLIP_KINDS)
    assert len(MiniDrive("test", size=None, times=2)) == 400 * 8
    assert len({MiniDrive("val", size=16, times=2, version=version).fingerprint for version in (1, 2)}) == 1


def test_single_frames_are_as_before():
    """Published scores, and everything kept by fingerprint, depend on it."""
    assert MiniDrive("val", size=30, version=1).fingerprint == "aa6c206fb0f90410"
    assert MiniDrive("val", size=8, times=2).fingerprint != MiniDrive("val", size=8, times=3).fingerprint


def test_what_clips_cannot_be(tmp_path):
    with pytest.raises(InputError, match=r"dataset.times=17: clips have up to 16 times"):
        MiniDrive(times=17)
    with pytest.raises(InputError, match="dataset.times=0: use a whole number"):
        MiniDrive(times=0)
    with pytest.raises(InputError, match="dataset.times=2: DriveLM's layout has one image of a camera"):
        MiniDrive(times=2).export(tmp_path)
