"""Which questions of a file are asked."""

import random
from collections import Counter
from pathlib import Path

import pytest
from helpers.drivelm_files import SIX, key_frame, write
from hypothesis import given, settings
from hypothesis import strategies as st

from prune2drive.data.drivelm import DriveLM
from prune2drive.data.subset import FRACTIONS, Subset
from prune2drive.errors import InputError

FILE = Path("questions.json")
SCENES = [f"{number:032x}" for number in range(4000)]
tokens = st.lists(st.text("0123456789abcdef", min_size=1, max_size=8), min_size=1, max_size=40)


def test_everything_by_default():
    assert Subset().choose(SCENES[:5], FILE) == [0, 1, 2, 3, 4]


@given(tokens, st.integers(0, 9))
def test_the_parts_share_out_the_questions_by_scene(scenes, seed):
    parts = []
    for split in FRACTIONS:
        try:
            parts.append(Subset(split=split, split_seed=seed).choose(scenes, FILE))
        except InputError:
            parts.append([])
    assert sorted(sum(parts, [])) == list(range(len(scenes)))
    of = [{scenes[place] for place in part} for part in parts]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])


def test_the_parts_have_their_shares():
    shares = {"search": 0.6, "val": 0.1, "test": 0.3, "none": 0}
    counts = Counter(map(Subset(split_fractions=shares).part, SCENES))
    for name, share in shares.items():
        assert counts[name] / len(SCENES) == pytest.approx(share, abs=0.03)


def test_added_scenes_move_none():
    subset = Subset(split="test")
    few, many = (subset.choose(SCENES[:count], FILE) for count in (50, 4000))
    assert few == [place for place in many if place < 50]


def test_the_runs_seed_does_not_move_the_test():
    few = SCENES[:60]
    assert Subset(split="test", seed=1).choose(few, FILE) == Subset(split="test", seed=2).choose(few, FILE)
    assert Subset(split="test", split_seed=1).choose(few, FILE) != Subset(split="test").choose(few, FILE)


def test_pinned():
    """A published split stays what it is."""
    parts = [Subset().part(scene) for scene in "abcdef"]
    assert parts == ["test", "search", "search", "val", "search", "search"]


@given(st.integers(1, 60), st.data())
def test_a_slice_is_the_files(count, data):
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count) | st.none())
    scenes = SCENES[:count]
    assert Subset(slice=[start, stop]).choose(scenes, FILE) == list(range(count))[start:stop]


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.data())
def test_the_split_comes_before_slice_and_sample(seed, data):
    scenes = random.Random(seed).choices(SCENES[:9], k=60)
    part = Subset(scenes=SCENES[:6]).choose(scenes, FILE)
    count = data.draw(st.integers(1, len(part)))
    assert Subset(scenes=SCENES[:6], slice=[0, count]).choose(scenes, FILE) == part[:count]
    drawn = Subset(scenes=SCENES[:6], sample=count, seed=seed).choose(scenes, FILE)
    assert len(drawn) == count and set(drawn) <= set(part) and drawn == sorted(drawn)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.data())
def test_frames_are_drawn_with_all_of_their_questions(seed, data):
    scenes = random.Random(seed).choices(SCENES[:4], k=60)
    frames = [(scene, data.draw(st.integers(0, 3))) for scene in scenes]
    part = [at for at, scene in enumerate(scenes) if scene in SCENES[:2]]
    known = {frames[at] for at in part}
    count = data.draw(st.integers(1, len(known)))
    drawn = Subset(scenes=SCENES[:2], frames=count, seed=seed).choose(scenes, FILE, frames)
    asked = {frames[at] for at in drawn}
    assert len(asked) == count and drawn == [at for at in part if frames[at] in asked]


def test_another_seed_draws_other_frames():
    frames = [at // 10 for at in range(600)]
    drawn = [Subset(frames=20, seed=seed).choose(["s"] * 600, FILE, frames) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_scenes_from_a_file(tmp_path, caplog):
    (tmp_path / "mine.txt").write_text(f"{SCENES[2]}\n\n  {SCENES[0]} \r\nelsewhere\n")
    file = tmp_path / "questions.json"
    assert Subset(scenes="mine.txt").choose(SCENES[:4], file) == [0, 2]
    assert "1 of 3 scenes of dataset.scenes are not in" in caplog.text
    with pytest.raises(InputError, match="other.txt: cannot be read"):
        Subset(scenes="other.txt").choose(SCENES[:4], file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "train"}, "dataset.split=train: choose from search, val, test"),
        ({"split_fractions": {"search": 0.5}}, "sum to 0.5"),
        ({"split_fractions": {"search": 1.5, "test": -0.5}}, "0 or more"),
        ({"slice": [3]}, "two numbers"),
        ({"slice": 500}, "slice=500: give two numbers"),
        ({"slice": [0, 2], "sample": 1}, "both set"),
        ({"slice": [0, 6]}, "has 5 questions"),
        ({"slice": [-2, None]}, "has 5 questions"),
        ({"slice": [2, 2]}, "has 5 questions"),
        ({"slice": [1.5, 2]}, "has 5 questions"),
        ({"sample": 0}, "has 5 questions"),
        ({"sample": 6}, "has 5 questions"),
        ({"sample": 1.5}, "has 5 questions"),
        ({"frames": 6}, r"dataset\.frames=6: .* has 5 frames; choose from 1 to 5"),
        ({"frames": 1, "sample": 1}, r"dataset\.sample and dataset\.frames are both set"),
        ({"scenes": ["elsewhere"]}, "no question is in dataset.scenes"),
    ],
)
def test_what_cannot_be_chosen(options, message):
    with pytest.raises(InputError, match=message) as caught:
        Subset(**options).choose(SCENES[:5], FILE)
    assert "\n" not in str(caught.value)


def test_a_question_without_a_scene_cannot_be_placed():
    with pytest.raises(InputError, match="names no scene"):
        Subset(split="test").choose(["a", ""], FILE)


def test_drivelm_asks_the_part(tmp_path):
    frames = {
        scene: {"key_frames": {"f": key_frame(perception=["A?", "B?"], cameras=SIX[:1])}} for scene in SCENES[:20]
    }
    whole = write(tmp_path, frames)
    by_split = [DriveLM(tmp_path, split=split) for split in FRACTIONS]
    assert sorted(sum((part.ids for part in by_split), [])) == sorted(whole.ids)
    assert DriveLM(tmp_path, slice=(3, 5)).ids == whole.ids[3:5]
    drawn = DriveLM(tmp_path, frames=7).ids
    assert len(drawn) == 14 and {name[:-1] + "01"[name[-1] == "0"] for name in drawn} == set(drawn)
    assert DriveLM(tmp_path, scenes=SCENES[1:2]).ids == whole.ids[2:4]
    prints = {part.fingerprint for part in (whole, *by_split, DriveLM(tmp_path, slice=(3, 5)))}
    assert len(prints) == 5
