"""A shard is whole frames, and all shards together are the dataset."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.data.shard import Shard, identify
from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive


class Frames:
    """Questions about named frames; those of the frame "" have none."""

    cameras = ("CAM_FRONT",)
    fingerprint = "f"

    def __init__(self, frames):
        self.frames = frames
        self.ids = [str(number) for number in range(len(frames))]

    def __len__(self):
        return len(self.frames)

    def frame(self, index):
        return self.frames[index]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.data())
def test_shards_divide_the_frames(sizes, data):
    count = data.draw(st.integers(1, len(sizes)))
    dataset = Frames([f"f{frame}" for frame, size in enumerate(sizes) for _ in range(size)])
    parts = [Shard(number, count).take(dataset) for number in range(1, count + 1)]
    assert [name for part in parts for name in part.ids] == dataset.ids
    frames = [{part.frame(index) for index in range(len(part))} for part in parts]
    assert all(frames) and sum(map(len, frames)) == len(sizes)
    if count * max(sizes) <= sum(sizes):
        assert max(map(len, parts)) <= sum(sizes) / count + max(sizes)


def test_equal_frames_make_equal_shards():
    dataset = Frames([f"f{place // 19}" for place in range(19 * 32)])
    assert {len(Shard(number, 16).take(dataset)) for number in range(1, 17)} == {38}


def test_questions_of_a_frame_that_lie_apart_stay_together_in_the_datasets_order():
    dataset = Frames(["a", "b", "a", "c", "", "b", ""])
    parts = [Shard(number, 5).take(dataset).ids for number in range(1, 6)]
    assert parts == [["0", "2"], ["1", "5"], ["3"], ["4"], ["6"]]


def test_a_shard_is_the_datasets_own_samples():
    whole = MiniDrive(size=30, resolution=28, version=1)
    part = Shard(2, 3).take(whole)
    assert part.ids == whole.ids[10:20] and part.cameras == whole.cameras
    assert [part.question(0), part.row(0), part.frame(0)] == [
        whole.question(10),
        whole.row(10),
        whole.frame(10),
    ]
    assert part[9].id == whole.ids[19]
    part.check()


def test_shards_know_each_other_by_the_whole():
    whole = MiniDrive(size=30, resolution=28, version=1)
    first, second = (identify(Shard(number, 3).take(whole)) for number in (1, 2))
    assert first["whole"] == second["whole"] == identify(whole)
    assert first["fingerprint"] != second["fingerprint"]
    assert (first["shard"], first["size"]) == ("1/3", 10)


@pytest.mark.parametrize("text", ["a", "3", 3, 0.5, "", "0/4", "1/0", "-1/4", "1/4/2", "1 / 4", "¹/4", ["1/4"]])
def test_no_shard(text):
    with pytest.raises(InputError, match="^shard=.*: write the part and their number, from 1/16 to 16/16$"):
        Shard.parse(text)


def test_shards_that_do_not_exist():
    assert str(Shard.parse("03/016")) == "3/16" and Shard.parse("16/16").file_name == "16-of-16"
    with pytest.raises(InputError, match="^shard=17/16: there are 16 parts, from 1/16 to 16/16; choose one of them$"):
        Shard.parse("17/16")
    with pytest.raises(InputError, match="^shard=1/4: the 30 questions are about 3 frames, .*; use at most 3 parts$"):
        Shard(1, 4).take(MiniDrive(size=30))
