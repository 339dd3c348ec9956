"""The shared vocabulary: a question about camera images, where its visual tokens lie, what was answered.

Shape suffixes: P positions of a prompt, N tokens of one camera.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """An annotated object: pixel corners (x0, y0, x1, y1) in the camera's original image.

    Args:
        visibility: nuScenes' level, from 1 (up to 40 % of it is seen) to 4 (80 % and more), where it is known.
    """

    camera: str
    box: tuple[float, float, float, float]
    label: str = ""
    visibility: int | None = None


@dataclass(frozen=True)
class Sample:
    """One question about one frame.

    Args:
        id: unique within the dataset; predictions and references are paired by it.
        images: camera name -> RGB image, in the order in which the prompt shows them.
        question: the question alone.
        prompt: what the model is asked, with `<image>` where each camera's tokens go, or those of the mosaic.
        reference: the answer to compare with, or None where a file holds questions only.
        steps: the reasoning that leads to it, where the reference gives one.
        tags: DriveLM's scoring tags (0 accuracy, 1 judge, 2 language, 3 match).
        image_sizes: camera -> (width, height) in which `objects` are annotated.
        mosaic: shows the images as one picture, in the place of a single marker.
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
    objects: tuple[ObjectBox, ...] = ()
    image_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mosaic: Mosaic | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.images)


@dataclass
class Prediction:
    """One row of predictions.jsonl: an answer and what it cost.

    Args:
        steps: the reasoning of the reference, where it gives one.
        kept: camera -> kept indices within the camera, packed by `pack_indices`.
        kept_counts: camera -> number of kept tokens.
        objects: the annotated ones, counted by camera, size and class (see `metrics/coverage.py`).
        stages: each cut as (decoder layer, visual tokens kept from there on).
        nominal: visual tokens that the keep ratios ask for.
        raw: visual tokens that the method's own rule would have kept, for methods without a budget.
        new_tokens: generated tokens, the end token included.
        flops: floating point operations of `vision` and `selection`.
        times: seconds of each phase, shared out evenly over the batch the sample was in.
        batch: names that batch (by its first sample): what was timed together.
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
    times: dict[str, float] = field(default_factory=dict)
    batch: str = ""
    error: str | None = None

    @classmethod
    def of(cls, sample: Sample, **found: Any) -> Prediction:
        """The row of a sample: what it asks, and what was found."""
        return cls(
            id=sample.id,
            question=sample.question,
            reference=sample.reference,
            steps=sample.steps,
            tags=sample.tags,
            scene=sample.scene,
            frame=sample.frame,
            **found,
        )

    def to_row(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        stages = [(layer, kept) for layer, kept in row.get("stages", ())]
        objects = [tuple(each) for each in row.get("objects", ())]
        lists = {name: tuple(row.get(name, ())) for name in ("steps", "tags")}
        return cls(**{**row, **lists, "stages": stages, "objects": objects})


def pack_indices(indices: Tensor, size: int) -> str:
    """A set of indices below `size` as a base64 bit mask, for one line of JSON."""
    mask = np.zeros(size, dtype=bool)
    mask[indices.cpu().numpy()] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def unpack_indices(packed: str) -> Tensor:
    """The ascending indices that `pack_indices` was given."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8))
    return torch.from_numpy(bits.nonzero()[0])
