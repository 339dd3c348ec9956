"""The cameras of nuScenes' rig; any other set of names works too."""

from __future__ import annotations

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
LAYOUT = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"))
"""The rows of one picture of all cameras, in the order in which one sees them when turning clockwise."""


def short_name(camera: str) -> str:
    """Returns a camera's name without the prefix that all names of the rig share, such as FRONT_LEFT."""
    return camera[4:] if camera.upper().startswith("CAM_") else camera


def spoken_name(camera: str) -> str:
    """Returns a camera's name in words, such as `front left`."""
    return short_name(camera).lower().replace("_", " ")
