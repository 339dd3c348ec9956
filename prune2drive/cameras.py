"""The cameras of nuScenes' rig; any other set of names works too."""

from __future__ import annotations

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
DIRECTIONS = dict(zip(CAMERAS, ("front", "front left", "front right", "back", "back left", "back right"), strict=True))
LAYOUT = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"))
"""The rows of one picture of all cameras, in the order in which one sees them when turning clockwise."""
