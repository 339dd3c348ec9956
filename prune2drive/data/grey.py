"""Shows a dataset's questions with grey images: what a model answers without seeing anything."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from prune2drive.data.dataset import Dataset, fingerprint
from prune2drive.data.view import DatasetView
from prune2drive.sample import Sample

GREY = (128, 128, 128)


class GreyImages(DatasetView):
    """Replaces all images by grey ones of the same size, and keeps the prompts and the number of visual tokens.

    A score that pruning does not lift above that of grey images says nothing about pruning.

    Args:
        whole: the dataset.
    """

    def __init__(self, whole: Dataset) -> None:
        super().__init__(whole, range(len(whole)))

    @property
    def fingerprint(self) -> str:
        return fingerprint([("grey", self.whole.fingerprint)])

    def __getitem__(self, index: int) -> Sample:
        sample = self.whole[index]
        images = {camera: Image.new("RGB", image.size, GREY) for camera, image in sample.images.items()}
        return replace(sample, images=images, picture=None)
