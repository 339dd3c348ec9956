import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.metrics.object_coverage import count_covered_objects, coverage, object_class
from prune2drive.mosaic import Mosaic
from prune2drive.sample import ObjectBox, Prediction, Sample
from prune2drive.token_map import TokenMap, View

GRID, SIDE = 8, 80  # tokens a side, pixels a side: a patch is 10 pixels
MAP = TokenMap.from_spans({"A": (0, GRID**2), "B": (GRID**2, 2 * GRID**2)}, 2 * GRID**2)


def sample(*things: ObjectBox, side: int = SIDE) -> Sample:
    return Sample("s", {}, "Q?", "Q?", objects=things, image_sizes={"A": (side, side), "B": (side, side)})


def kept(A=(), B=()):
    return {"A": torch.tensor(A, dtype=torch.long), "B": torch.tensor(B, dtype=torch.long)}


corner = st.floats(0, SIDE, allow_nan=False)


@given(
    st.lists(st.tuples(st.sampled_from("AB"), corner, corner, corner, corner), max_size=8),
    st.sets(st.integers(0, GRID**2 - 1)),
    st.sets(st.integers(0, GRID**2 - 1)),
)
def test_counts_equal_those_of_a_painted_image(boxes, in_a, in_b):
    """Another way: walk over the kept patches' centres in pixels."""
    things = [ObjectBox(c, (min(a, b), min(d, e), max(a, b), max(d, e)), "car") for c, a, d, b, e in boxes]
    tallies = count_covered_objects(sample(*things), MAP, kept(sorted(in_a), sorted(in_b)))
    for camera, indices in (("A", in_a), ("B", in_b)):
        expected = 0
        for thing in (thing for thing in things if thing.camera == camera):
            x0, y0, x1, y1 = thing.box
            expected += any(x0 <= 10 * (i % GRID) + 5 <= x1 and y0 <= 10 * (i // GRID) + 5 <= y1 for i in indices)
        assert sum(covered for name, *_, covered, _ in tallies if name == camera) == expected
        assert sum(row[4] for row in tallies if row[0] == camera) == sum(thing.camera == camera for thing in things)


def test_a_centre_counts_not_a_corner():
    thing = ObjectBox("A", (11, 11, 14, 14))  # inside the patch of row 1 and column 1, beside its centre
    assert count_covered_objects(sample(thing), MAP, kept(range(64))) == [("A", "small", "unnamed", 0, 1)]
    reaching = replace(thing, box=(11, 11, 16, 16))
    assert count_covered_objects(sample(reaching), MAP, kept([9]))[0][3] == 1
    assert count_covered_objects(sample(reaching), MAP, kept([8, 10]))[0][3] == 0
    assert count_covered_objects(sample(reaching), MAP, kept(B=[9]))[0][3] == 0


@pytest.mark.parametrize("side", [80, 896])
def test_sizes_are_shares_of_the_image(side):
    """COCO's 32 and 96 pixels in an image of 640 x 480 are 5.8 and 17.3 % of a square's side."""
    for share, size in [(0.05, "small"), (0.065, "medium"), (0.165, "medium"), (0.18, "large"), (1, "large")]:
        thing = ObjectBox("A", (0, 0, share * side, share * side), "car")
        assert count_covered_objects(sample(thing, side=side), MAP, kept())[0][1] == size


@pytest.mark.parametrize(
    ("label", "name"), [("Vehicle: Black sedan", "Vehicle"), ("vehicle.car", "vehicle.car"), ("", "unnamed")]
)
def test_class_of_a_label(label, name):
    assert object_class(ObjectBox("A", (0, 0, 1, 1), label)) == name


def test_a_stitched_picture():
    """In a mosaic of A beside B, a token of the right half is B's, in B's own coordinates."""
    whole = TokenMap.from_grids([(View("picture", 4, 8), torch.arange(32))], 32)
    divided = Mosaic([["A", "B"]]).divide(whole)
    thing = ObjectBox("B", (0, 0, 20, 20), "car")
    assert count_covered_objects(sample(thing), divided, kept(B=[0])) == [("B", "large", "car", 1, 1)]
    assert count_covered_objects(sample(thing), divided, kept(A=[0], B=[1]))[0][3] == 0


def test_a_camera_that_is_not_shown_has_no_part():
    assert count_covered_objects(sample(ObjectBox("C", (0, 0, 9, 9))), MAP, kept(range(64))) == []


def test_a_box_without_its_images_size():
    with pytest.raises(InputError, match="s: A has boxes, but image_sizes does not say"):
        count_covered_objects(replace(sample(ObjectBox("A", (0, 0, 1, 1))), image_sizes={}), MAP, kept())


# Over rows


def rows(frames: list[list[tuple[int, int]]]) -> list[Prediction]:
    """A question for each (covered, objects) of each frame."""
    return [
        Prediction(f"{f}-{q}", "Q?", frame=f"f{f}", objects=[("A", "small", "car", covered, objects)])
        for f, questions in enumerate(frames)
        for q, (covered, objects) in enumerate(questions)
    ]


def test_shares():
    found = coverage(
        [
            Prediction("a", "?", frame="f", objects=[("A", "small", "car", 1, 2), ("B", "large", "bus", 2, 2)]),
            Prediction("b", "?", frame="g", objects=[("A", "small", "bus", 0, 4)]),
            Prediction("c", "?", error="no such image"),
        ]
    )
    keys = {"objects": (3, 8), "A": (1, 6), "B": (2, 2), "small": (1, 6), "large": (2, 2)}
    keys |= {"class/car": (1, 2), "class/bus": (2, 6)}
    assert {key for key in found if not key.endswith(("_n", "_stderr"))} == {f"coverage/{key}" for key in keys}
    for key, (covered, objects) in keys.items():
        assert found[f"coverage/{key}"] == covered / objects and found[f"coverage/{key}_n"] == objects


def test_nothing_annotated():
    assert coverage([Prediction("a", "?")]) == coverage([]) == {}


def test_only_the_commonest_classes():
    objects = [("A", "small", f"class {number:02}", 0, 100 - number) for number in range(30)]
    found = coverage([Prediction("a", "?", objects=objects)])
    classes = [key for key in found if "/class/" in key and not key.endswith(("_n", "_stderr"))]
    assert classes == [f"coverage/class/class {number:02}" for number in range(10)]


def test_more_questions_about_the_same_frames_tell_nothing_new():
    frames = [[(1, 3)], [(2, 2)], [(0, 5)], [(4, 4)]]
    once, often = (coverage(rows([frame * times for frame in frames])) for times in (1, 20))
    assert often["coverage/objects"] == once["coverage/objects"]
    assert often["coverage/objects_stderr"] == pytest.approx(once["coverage/objects_stderr"]) != 0


def test_the_standard_error_is_that_of_resampled_frames():
    dice = random.Random(0)
    frames = [[(dice.randint(0, count), count)] for count in (dice.randint(1, 9) for _ in range(200))]
    found = coverage(rows(frames))
    covered, objects = np.array([frame[0] for frame in frames]).T
    drawn = np.random.default_rng(0).integers(0, 200, (4000, 200))
    expected = (covered[drawn].sum(1) / objects[drawn].sum(1)).std()
    assert found["coverage/objects_stderr"] == pytest.approx(expected, rel=0.05)


def test_the_standard_error_of_frames_of_one_object_is_that_of_a_mean():
    hits = [1, 0, 0]
    found = coverage(rows([[(hit, 1)] for hit in hits]))
    assert found["coverage/objects_stderr"] == pytest.approx(np.std(hits, ddof=1) / 3**0.5)


def test_one_frame_has_no_spread():
    assert coverage(rows([[(1, 3), (0, 3)]]))["coverage/objects_stderr"] == 0
    assert all(math.isfinite(value) for value in coverage(rows([[(0, 3)]])).values())
