"""Reads nuScenes' tables (arXiv 1903.11027) through its devkit: images, calibration and boxes in view."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune2drive.cameras import CAMERAS
from prune2drive.data.images import inside
from prune2drive.errors import InputError, shortened
from prune2drive.sample import ObjectBox

NEAR = 0.1  # metres: what is closer to the camera's plane has no place in its image
EDGES = tuple((a, b) for a in range(8) for b in range(a + 1, 8))  # of a box, with its diagonals, which lie inside


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera at one moment.

    Args:
        path: image path, relative to the data root.
        size: (width, height) of the image in pixels.
        intrinsic: pixels from camera coordinates (x right, y down, z ahead); [3, 3].
        to_world: world coordinates from camera coordinates, both in metres; [4, 4].
    """

    path: str
    size: tuple[int, int]
    intrinsic: np.ndarray
    to_world: np.ndarray


class NuScenesTables:
    """Tables of one nuScenes version. A sample's token is the frame's token in DriveLM. No image is read.

    Args:
        root: folder that holds `<version>/`, `maps/` and `samples/`.
        version: such as v1.0-trainval, v1.0-mini.

    Raises:
        InputError: the tables are missing or damaged.
    """

    def __init__(self, root: str | Path, version: str) -> None:
        self.root = Path(root).expanduser()
        self.folder = self.root / version
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no nuScenes tables there; set dataset.nuscenes and dataset.version")
        from nuscenes.nuscenes import NuScenes  # takes two seconds

        try:
            self._tables = NuScenes(version, str(self.root), verbose=False)
        except (OSError, AssertionError, KeyError, ValueError) as error:
            raise InputError(f"{self.folder}: the devkit cannot open it ({error!r}); unpack the tables again") from None

    def scene(self, token: str) -> str:
        """Returns the token of a sample's scene.

        Raises:
            InputError: the sample is not in the tables.
        """
        return str(self._sample(token)["scene_token"])

    def cameras(self, token: str) -> dict[str, Camera]:
        """Returns the cameras of a sample, in the order in which prompts show them.

        Raises:
            InputError: the sample is not in the tables.
        """
        data = self._sample(token)["data"]
        return {camera: self._camera(data[camera]) for camera in CAMERAS if camera in data}

    def paths(self, token: str) -> dict[str, str]:
        """Returns camera -> image path, relative to the data root.

        Raises:
            InputError: the sample is not in the tables, or a path leads out of the data root.
        """
        data = self._sample(token)["data"]
        files = {name: self._tables.get("sample_data", data[name])["filename"] for name in CAMERAS if name in data}
        return {name: inside(file, f"{self.folder}/sample_data.json: sample {token}") for name, file in files.items()}

    def objects(self, token: str) -> tuple[ObjectBox, ...]:
        """Returns the annotated objects of a sample, once for each camera whose image they touch.

        Hidden objects are included, with their `visibility`.

        Raises:
            InputError: the sample is not in the tables.
        """
        from nuscenes.utils.geometry_utils import BoxVisibility

        found = []
        data = self._sample(token)["data"]
        for name, camera in self.cameras(token).items():
            _, boxes, _ = self._tables.get_sample_data(data[name], box_vis_level=BoxVisibility.NONE)
            for box in boxes:
                if rectangle := project(box.corners(), camera.intrinsic, camera.size):
                    level = self._tables.get("sample_annotation", box.token).get("visibility_token")
                    found.append(ObjectBox(name, rectangle, box.name, int(level) if level else None))
        return tuple(found)

    def _sample(self, token: str) -> dict[str, Any]:
        try:
            return self._tables.get("sample", token)
        except KeyError:
            file = f"{self.folder}/sample.json"
            raise InputError(f"{file}: no sample {shortened(token)}; set dataset.version to its tables") from None

    def _camera(self, token: str) -> Camera:
        from nuscenes.utils.geometry_utils import transform_matrix
        from pyquaternion import Quaternion

        shot = self._tables.get("sample_data", token)
        sensor = self._tables.get("calibrated_sensor", shot["calibrated_sensor_token"])
        pose = self._tables.get("ego_pose", shot["ego_pose_token"])
        places = [transform_matrix(at["translation"], Quaternion(at["rotation"])) for at in (pose, sensor)]
        intrinsic = np.array(sensor["camera_intrinsic"], dtype=float)
        return Camera(shot["filename"], (shot["width"], shot["height"]), intrinsic, places[0] @ places[1])


def project(
    corners: np.ndarray, intrinsic: np.ndarray, size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Returns the rectangle (x0, y0, x1, y1) in pixels around a 3-D box's visible part; None where nothing is visible.

    Args:
        corners: the box's corners in camera coordinates, in metres; [3, 8].
        intrinsic: pixels from camera coordinates; [3, 3].
        size: (width, height) of the image in pixels.
    """
    from shapely.geometry import MultiPoint, box

    depth = corners[2]
    ahead = [corners[:, i] for i in range(8) if depth[i] >= NEAR]
    if not ahead:
        return None
    for a, b in EDGES:  # where the box passes the camera, its cut with the near plane stands for what is behind
        if (depth[a] < NEAR) != (depth[b] < NEAR):
            share = (NEAR - depth[a]) / (depth[b] - depth[a])
            ahead.append(corners[:, a] + share * (corners[:, b] - corners[:, a]))
    pixels = intrinsic @ np.stack(ahead, axis=1)
    shown = MultiPoint((pixels[:2] / pixels[2]).T).convex_hull.intersection(box(0, 0, *size))
    if shown.area == 0:
        return None
    x0, y0, x1, y1 = map(float, shown.bounds)
    return x0, y0, x1, y1
