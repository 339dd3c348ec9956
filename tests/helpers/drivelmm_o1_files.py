"""Tiny files in DriveLMM-o1's layout."""

import json
from pathlib import Path

from PIL import Image

from prune2drive.cameras import LAYOUT
from prune2drive.data.drivelmm_o1 import DriveLMMo1
from prune2drive.mosaic import Mosaic

CAMERAS = tuple(camera for row in LAYOUT for camera in row)


def item(idx="s_f_1", question="What is near?", **changes):
    scene_frame = idx.rpartition("_")[0]
    photos = [f"samples/{camera}/{scene_frame}__{camera}.png" for camera in sorted(CAMERAS)]
    steps = "1. Look at the top row.\n\n2. A van is near.\n"
    return {"idx": idx, "image": photos, "question": question, "final_answer": "A van.", "steps": steps} | changes


def colour(camera: str) -> tuple[int, int, int]:
    return 40 * CAMERAS.index(camera), 0, 200


def write(root: Path, *items, **options) -> DriveLMMo1:
    (root / "DriveLMMo1_TEST.json").write_text(json.dumps(items))
    return DriveLMMo1(root, **options)


def draw(root: Path, *frames: str, size=(16, 9)) -> Path:
    """The pictures and photos of frames, each camera in a colour of its own."""
    (root / "multiview_val").mkdir(exist_ok=True)
    for frame in frames:
        photos = {camera: Image.new("RGB", size, colour(camera)) for camera in CAMERAS}
        Mosaic(LAYOUT).stitch(photos).save(root / f"multiview_val/{frame}.png")
        for camera, photo in photos.items():
            (root / "nuscenes/samples" / camera).mkdir(parents=True, exist_ok=True)
            photo.save(root / f"nuscenes/samples/{camera}/{frame}__{camera}.png")
    return root
