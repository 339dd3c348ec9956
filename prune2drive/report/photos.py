"""Reads photos again from a data set and embeds them in a page, as many as there is room for."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from prune2drive.data.dataset import Dataset
from prune2drive.errors import InputError
from prune2drive.report.finished_run import FinishedRun
from prune2drive.sample import Prediction

ROOM = 3_000_000  # bytes of all photos, as text
WIDTH, QUALITY = 448, 80


class Photos:
    """Embeds frames' photos, each once.

    Args:
        dataset: holds the photos; None where it is not at hand.
        room: what they may take together, in bytes.
        note: why photos are missing.

    Attributes:
        encoded: the photos, as base64 of JPEG files.
    """

    def __init__(self, dataset: Dataset | None, room: int = ROOM, note: str = "") -> None:
        self.dataset, self.room, self.note = dataset, room, note
        self.encoded: list[str] = []
        self._places: dict[str, int] | None = None

    @classmethod
    def of(cls, runs: Iterable[FinishedRun], room: int | None = None) -> Photos:
        """Returns the photos of the first run whose questions are at hand."""
        note = ""
        for run in runs:
            try:
                return cls(run.dataset(), ROOM if room is None else room)
            except InputError as error:
                note = note or f"There are no photos: {error}."
        return cls(None, note=note)

    def frame(self, row: Prediction, cameras: Sequence[str]) -> list[int]:
        """Embeds the photos of a question; returns the number of each camera's photo, -1 for those without."""
        if self.dataset is None or self.room <= 0:
            if self.dataset is not None and not self.note:
                self.note = "Questions further down have no photos, which would make this page too large."
            return [-1] * len(cameras)
        images = self._images(row)
        return [self._add(images[camera]) if camera in images else -1 for camera in cameras]

    def _images(self, row: Prediction) -> Mapping[str, Image.Image]:
        """Returns the photos of a question; none where the data set has changed since."""
        assert self.dataset is not None
        if self._places is None:
            self._places = {id: place for place, id in enumerate(self.dataset.ids)}
        try:
            place = self._places[row.id]
            if self.dataset.question(place) == row.question:
                return self.dataset[place].images
            raise InputError(f"{row.id}: its question is another one now")
        except (InputError, KeyError, OSError) as error:
            self.note = self.note or f"Some photos are missing: {error}."
            return {}

    def _add(self, image: Image.Image) -> int:
        photo = image.convert("RGB")
        photo.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS, reducing_gap=2.0)
        stream = io.BytesIO()
        photo.save(stream, "JPEG", quality=QUALITY, optimize=True)
        self.encoded.append(base64.b64encode(stream.getvalue()).decode())
        self.room -= len(self.encoded[-1])
        return len(self.encoded) - 1
