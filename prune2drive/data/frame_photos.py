"""Reads the photos of nuScenes frames and, from nuScenes' tables, what is annotated in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from PIL import Image

from prune2drive.data.images import check_files, read_image
from prune2drive.data.nuscenes import NuScenesTables
from prune2drive.sample import ObjectBox

HINT = "set dataset.images to the folder that holds nuScenes' samples/"

Size = tuple[int, int]
Annotated = tuple[tuple[ObjectBox, ...], dict[str, Size]]


class FramePhotos:
    """Reads photos and objects; those of the last frame stay in memory, since its questions follow one another.

    Args:
        folder: the folder that image paths are relative to.
        tables: tables that have the frames' objects.
    """

    def __init__(self, folder: Path, tables: NuScenesTables | None = None) -> None:
        self.folder, self.tables = folder, tables
        self._decoded: tuple[Mapping[str, str], dict[str, Image.Image]] | None = None
        self._projected: tuple[str, Annotated] | None = None

    def images(self, paths: Mapping[str, str]) -> dict[str, Image.Image]:
        """Returns camera -> photo.

        Args:
            paths: camera -> image path.

        Raises:
            InputError: a photo is missing or damaged.
        """
        if self._decoded is None or self._decoded[0] != paths:
            self._decoded = paths, {name: read_image(self.folder / path, HINT) for name, path in paths.items()}
        return dict(self._decoded[1])

    def annotated(self, token: str, cameras: Collection[str]) -> Annotated:
        """Returns the objects that cameras see, and camera -> (width, height) in pixels in which their boxes are.

        Without tables there are none.

        Args:
            token: the sample's token in nuScenes.

        Raises:
            InputError: the sample is not in the tables.
        """
        if self.tables is None:
            return (), {}
        if self._projected is None or self._projected[0] != token:
            sizes = {name: camera.size for name, camera in self.tables.cameras(token).items()}
            self._projected = token, (self.tables.objects(token), sizes)
        objects, sizes = self._projected[1]
        seen = tuple(thing for thing in objects if thing.camera in cameras)
        return seen, {camera: size for camera, size in sizes.items() if camera in cameras}

    def check(self, frames: Iterable[Mapping[str, str]]) -> None:
        """Checks that all photos are there.

        Args:
            frames: camera -> image path, for each frame.

        Raises:
            InputError: photos are missing: the first of them, and how many.
        """
        check_files([self.folder / path for paths in frames for path in paths.values()], HINT)
