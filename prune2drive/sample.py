"""The shared vocabulary: a question about camera images, and what was answered."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from prune2drive.mosaic import Mosaic
from prune2drive.token_map import TokenMap

__all__ = ["ObjectBox", "Prediction", "Sample", "TokenMap", "pack_indices", "unpack_indices"]

IMAGE_MARKER = "<image>"
ObjectCount = tuple[str, str, str, int, int]
"""Objects of one camera, size and class: how many keep a token, and how many there are."""


@dataclass(frozen=True)
class ObjectBox:
    """An annotated object.

    Args:
        camera: the camera that shows the object; its view, where a sample shows it at several times.
        box: pixel corners (x0, y0, x1, y1) in the camera's original image.
        label: the object's class, or a description.
        visibility: nuScenes' level, from 1 (up to 40 % of the object is seen) to 4 (80 % and more), where it is known.
    """

    camera: str
    box: tuple[float, float, float, float]
    label: str = ""
    visibility: int | None = None


class ReleasedImages(Mapping[str, Image]):
    """The cameras of images that a sample no longer carries; asking for an image is an error.

    Args:
        cameras: names of the cameras.
    """

    def __init__(self, cameras: Iterable[str]) -> None:
        self.cameras = tuple(cameras)

    def __getitem__(self, camera: str) -> Image:
        raise RuntimeError(f"the image of {camera} is no longer there: only model inputs travel from a loader's worker")

    def __iter__(self) -> Iterator[str]:
        return iter(self.cameras)

    def __len__(self) -> int:
        return len(self.cameras)


@dataclass(frozen=True)
class Sample:
    """One question about one frame.

    Args:
        id: name of the question, unique within the dataset; predictions and references are paired by it.
        images: camera name -> RGB image, in the order in which the prompt shows them. A camera that is shown at several
            times has views in its place, named as in `cameras.py`; they are cameras to all that follows.
        question: the question alone.
        prompt: the question as the model is asked, with one `<image>` marker for each camera or for the mosaic.
        reference: the answer to compare with, or None where a file holds questions only.
        steps: the reasoning that leads to the reference, where the dataset gives it.
        tags: DriveLM's scoring tags (0 accuracy, 1 judge, 2 language, 3 match).
        scene: name of the frame's scene.
        frame: name of the frame.
        kind: kind of question, as the dataset calls it; empty where it has none.
        objects: annotated objects.
        image_sizes: camera -> (width, height) in which `objects` are annotated.
        mosaic: how the images make one picture, which the prompt shows at a single marker.
        picture: that picture, where it is at hand; else it is stitched from `images`.
    """

    id: str
    images: Mapping[str, Image]
    question: str
    prompt: str
    reference: str | None = None
    steps: tuple[str, ...] = ()
    tags: tuple[int, ...] = ()
    scene: str = ""
    frame: str = ""
    kind: str = ""
    objects: tuple[ObjectBox, ...] = ()
    image_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mosaic: Mosaic | None = None
    picture: Image | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras in the order in which the prompt shows them."""
        return tuple(self.images)

    @property
    def has_images(self) -> bool:
        """Whether the sample still carries its images."""
        return not isinstance(self.images, ReleasedImages)

    @property
    def shown(self) -> Mapping[str, Image]:
        """The images at the prompt's markers: one for each camera, or one picture of all cameras."""
        if self.mosaic is None:
            return self.images
        return {"mosaic": self.picture or self.mosaic.stitch(self.images)}

    def without_images(self) -> Sample:
        """Returns the sample with the names of its cameras alone."""
        return replace(self, images=ReleasedImages(self.images), picture=None)


@dataclass
class Prediction:
    """One row of predictions.jsonl: an answer and what it cost.

    Args:
        id: the sample's id.
        question: the question alone.
        answer: the model's answer.
        reference: the answer to compare with.
        steps: the reasoning that leads to the reference, where the dataset gives it.
        tags: DriveLM's scoring tags.
        scene: name of the frame's scene.
        frame: name of the frame.
        kind: kind of question, as the dataset calls it; empty where it has none.
        text_tokens: prompt positions that hold no visual token.
        full_counts: camera -> number of visual tokens.
        kept_counts: camera -> number of kept tokens.
        kept: camera -> kept indices within the camera, packed by `pack_indices`.
        objects: annotated objects by camera, size and class, as `metrics/object_coverage.py` counts them.
        stages: (decoder layer, visual tokens kept from that layer on), one pair for each cut.
        nominal: visual tokens that the keep ratios ask for.
        raw: visual tokens that the method's own rule would have kept, for methods without a budget.
        new_tokens: generated tokens, the end token included.
        flops: floating-point operations of `vision` and `selection`.
        seconds: time from the batch before to the end of this one, divided evenly over the batch's samples.
        error: why the sample has no answer, with `on_error=skip`.
    """

    id: str
    question: str
    answer: str | None = None
    reference: str | None = None
    steps: tuple[str, ...] = ()
    tags: tuple[int, ...] = ()
    scene: str = ""
    frame: str = ""
    kind: str = ""
    text_tokens: int = 0
    full_counts: dict[str, int] = field(default_factory=dict)
    kept_counts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    objects: list[ObjectCount] = field(default_factory=list)
    stages: list[tuple[int, int]] = field(default_factory=list)
    nominal: int | None = None
    raw: int | None = None
    new_tokens: int = 0
    flops: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, sample: Sample, **results: Any) -> Prediction:
        """Returns the row of a sample.

        Args:
            **results: fields that the sample does not have.
        """
        return cls(
            id=sample.id,
            question=sample.question,
            reference=sample.reference,
            steps=sample.steps,
            tags=sample.tags,
            scene=sample.scene,
            frame=sample.frame,
            kind=sample.kind,
            **results,
        )

    def to_row(self) -> dict[str, Any]:
        """Returns the row as a JSON object."""
        return dict(vars(self))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """Reads a row from its JSON object."""
        stages = [(layer, kept) for layer, kept in row.get("stages", ())]
        objects = [tuple(count) for count in row.get("objects", ())]
        lists = {name: tuple(row.get(name, ())) for name in ("steps", "tags")}
        return cls(**{**row, **lists, "stages": stages, "objects": objects})


def pack_indices(indices: Tensor, size: int) -> str:
    """Packs a set of indices below `size` as a base64 bit mask, for one line of JSON."""
    mask = np.zeros(size, dtype=bool)
    mask[indices.cpu().numpy()] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def unpack_indices(packed: str) -> Tensor:
    """Returns the indices that `pack_indices` packed, ascending."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8))
    return torch.from_numpy(bits.nonzero()[0])
