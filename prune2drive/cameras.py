"""The cameras of nuScenes' rig, and the names of what cameras show; any other set of names works too.

Where a sample shows a camera several times, each image is a view of its own, named by camera and time: CAM_FRONT@0 is
the earliest. Budgets, token maps and pages know views by their names alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
LAYOUT = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"))
"""The rows of one picture of all cameras, in the order in which one sees them when turning clockwise."""
_VIEW = re.compile(r"(.+)@(0|[1-9][0-9]*)", re.DOTALL)


def view_name(camera: str, time: int | None) -> str:
    """Returns the name of a camera's view at a time, from 0 for the earliest; the camera's own without a time."""
    return camera if time is None else f"{camera}@{time}"


def camera_of(view: str) -> str:
    """Returns the camera of a view."""
    found = _VIEW.fullmatch(view)
    return found[1] if found else view


def time_of(view: str) -> int | None:
    """Returns the time of a view; None where its camera is shown once."""
    found = _VIEW.fullmatch(view)
    return int(found[2]) if found else None


def clip_views(cameras: Sequence[str], times: int) -> tuple[str, ...]:
    """Returns the views of cameras, camera after camera and each from the earliest; a single time has no name."""
    return tuple(view_name(camera, time if times > 1 else None) for camera in cameras for time in range(times))


def short_name(camera: str) -> str:
    """Returns a camera's name without the prefix that all names of the rig share, such as FRONT_LEFT."""
    return camera[4:] if camera.upper().startswith("CAM_") else camera


def spoken_name(camera: str) -> str:
    """Returns a camera's name in words, such as `front left`."""
    return short_name(camera).lower().replace("_", " ")


def arranged(views: Collection[str]) -> tuple[list[str], int]:
    """Returns views as pages show them, and in how many columns.

    One time follows the other; at each, the rig's cameras lie as in `LAYOUT`, and others follow as they came.
    """
    places = {camera: place for place, camera in enumerate(camera for row in LAYOUT for camera in row)}
    ordered = sorted(views, key=lambda view: (time_of(view) or 0, places.get(camera_of(view), len(places))))
    most = max(Counter(map(time_of, views)).values(), default=0)
    return ordered, most if most <= 3 else math.ceil(math.sqrt(most))
