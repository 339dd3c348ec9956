"""Measures object coverage: the share of annotated objects that keep at least one visual token.

An object is covered where the centre of a kept token's patch lies in its 2-D box. One smaller than a patch may contain
no centre at all; what a run with all tokens covers is the most that any method can.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.metrics.base import Column
from prune2drive.metrics.statistics import RatioOfSums
from prune2drive.sample import ObjectBox, ObjectCount, Prediction, Sample
from prune2drive.token_map import TokenMap

# COCO's limits, 32 x 32 and 96 x 96 pixels, as shares of a 640 x 480 image, so that they hold at any resolution.
SIZES = {"small": 32**2 / (640 * 480), "medium": 96**2 / (640 * 480), "large": math.inf}
COLUMNS = {"coverage/objects": Column("coverage", is_share=True, in_comparison=True)}
CLASSES = 10  # the commonest are reported


def count_covered_objects(sample: Sample, token_map: TokenMap, kept: Mapping[str, Tensor]) -> list[ObjectCount]:
    """Counts a sample's objects by camera, size and class.

    Args:
        sample: has objects, and the sizes of the images in which they are annotated.
        token_map: the map of the sample's prompt; objects of cameras that it does not show are not counted.
        kept: camera -> kept indices within that camera.

    Raises:
        InputError: a box lies in an image of unknown size.
    """
    shown = [thing for thing in sample.objects if thing.camera in token_map.cameras]
    if unsized := [thing for thing in shown if thing.camera not in sample.image_sizes]:
        raise InputError(
            f"{sample.id}: {unsized[0].camera} has boxes, but image_sizes does not say in which image size"
        )
    flags: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    for camera in dict.fromkeys(thing.camera for thing in shown):
        things = [thing for thing in shown if thing.camera == camera]
        boxes_O4 = torch.tensor([thing.box for thing in things]) / torch.tensor(sample.image_sizes[camera] * 2)
        areas = (boxes_O4[:, 2:] - boxes_O4[:, :2]).prod(dim=1).tolist()
        are_covered = _covered(boxes_O4, _centres(token_map, camera, kept))
        for thing, area, covered in zip(things, areas, are_covered, strict=True):
            size = next(name for name, limit in SIZES.items() if area < limit)
            flags[camera, size, object_class(thing)].append(covered)
    return [(*key, sum(covered), len(covered)) for key, covered in flags.items()]


def _covered(boxes_O4: Tensor, centres_K2: Tensor) -> list[bool]:
    """Returns for every box whether a centre lies in it, in units of the image."""
    inside_OK2 = (boxes_O4[:, None, :2] <= centres_K2) & (centres_K2 <= boxes_O4[:, None, 2:])
    return inside_OK2.all(dim=2).any(dim=1).tolist()


def object_class(thing: ObjectBox) -> str:
    """Returns the class in a label: nuScenes' category, or what DriveLM's `Vehicle: Black sedan` begins with."""
    return thing.label.partition(":")[0].strip() or "unnamed"


def coverage(rows: Iterable[Prediction]) -> dict[str, float]:
    """Returns the share of objects that are covered: all, by camera, by size, and by class for the commonest classes.

    Each question counts the objects of its frame. `_n` is the number of objects so counted; `_stderr` is that of a
    ratio of sums over frames (Cochran, Sampling Techniques, 1977, section 2.11), since the objects of a frame, and its
    questions, are not independent: 0 for a single frame.

    Args:
        rows: the predictions of one run; read once. The result is empty without annotated objects.
    """
    shares: dict[str, RatioOfSums] = defaultdict(RatioOfSums)
    classes: Counter[str] = Counter()
    for group, of_group in groupby(rows, key=lambda row: row.frame or row.id):
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in of_group:
            for camera, size, label, covered, objects in row.objects:
                classes[label] += objects
                for key in ("objects", camera, size, f"class/{label}"):
                    count = counts[key]
                    count[0] += covered
                    count[1] += objects
        for key, count in counts.items():
            shares[key].add(group, *count)
    common = [f"class/{label}" for label, _ in classes.most_common(CLASSES)]
    keys = [key for key in ("objects", *SIZES) if key in shares]
    keys += sorted(key for key in shares if key not in keys and not key.startswith("class/"))
    return {name: value for key in (*keys, *common) for name, value in shares[key].flat(f"coverage/{key}").items()}


def _centres(token_map: TokenMap, camera: str, kept: Mapping[str, Tensor]) -> Tensor:
    """Returns the centres of a camera's kept patches in units of its image; [K, 2]."""
    boxes = token_map.boxes(camera)[kept.get(camera, torch.empty(0, dtype=torch.long)).cpu()]
    return (boxes[:, :2] + boxes[:, 2:]) / 2
