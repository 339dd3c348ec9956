"""A tiny nuScenes with geometry that can be worked out by hand."""

import json
from pathlib import Path

from PIL import Image

VERSION = "v1.0-tiny"
FOCAL, SIZE = 1000.0, (1600, 900)
AHEAD = (0.5, -0.5, 0.5, -0.5)  # the rotation of a camera that looks along the car's x axis, its z along that
BACK = (0.5, -0.5, -0.5, 0.5)
CAMERAS = {"CAM_BACK": BACK, "CAM_FRONT": AHEAD}
EGO = (100.0, 200.0, 0.0)
LEFT_TURN = (0.5**0.5, 0.0, 0.0, 0.5**0.5)  # the car looks along the world's y axis
HEIGHT = 1.5  # of the cameras above the ground, at the car's origin


def annotation(ahead, left=0.0, up=HEIGHT, size=(2.0, 4.0, 2.0), name="vehicle.car", visibility="4"):
    """A box `ahead` metres in front of the car; its size is width, length, height as nuScenes has them."""
    return {
        "translation": [EGO[0] - left, EGO[1] + ahead, up],
        "size": list(size),
        "rotation": list(LEFT_TURN),
        "name": name,
        "visibility_token": visibility,
    }


def write(root: Path, *annotations: dict, sample: str = "f") -> Path:
    names = sorted({each["name"] for each in annotations})
    tables = {
        "category": [{"token": f"c-{name}", "name": name, "description": ""} for name in names],
        "attribute": [],
        "visibility": [],
        "instance": [
            {"token": f"i{i}", "category_token": f"c-{each['name']}", "nbr_annotations": 1}
            for i, each in enumerate(annotations)
        ],
        "sensor": [{"token": f"s-{name}", "channel": name, "modality": "camera"} for name in CAMERAS],
        "calibrated_sensor": [
            {
                "token": f"k-{name}",
                "sensor_token": f"s-{name}",
                "translation": [0, 0, HEIGHT],
                "rotation": list(rotation),
                "camera_intrinsic": [[FOCAL, 0, SIZE[0] / 2], [0, FOCAL, SIZE[1] / 2], [0, 0, 1]],
            }
            for name, rotation in CAMERAS.items()
        ],
        "ego_pose": [{"token": "e", "timestamp": 0, "translation": list(EGO), "rotation": list(LEFT_TURN)}],
        "log": [{"token": "l"}],
        "scene": [],
        "sample": [{"token": sample, "timestamp": 0, "prev": "", "next": "", "scene_token": "s"}],
        "sample_data": [
            {
                "token": f"d-{name}",
                "sample_token": sample,
                "ego_pose_token": "e",
                "calibrated_sensor_token": f"k-{name}",
                "filename": f"samples/{name}/a.png",
                "is_key_frame": True,
                "width": SIZE[0],
                "height": SIZE[1],
                "prev": "",
                "next": "",
            }
            for name in CAMERAS
        ],
        "sample_annotation": [
            {"token": f"a{i}", "sample_token": sample, "instance_token": f"i{i}", "prev": "", "next": ""}
            | {key: value for key, value in each.items() if key != "name"}
            for i, each in enumerate(annotations)
        ],
        "map": [{"token": "m", "log_tokens": ["l"], "filename": "maps/m.png"}],
    }
    for folder in (VERSION, "maps", *(f"samples/{name}" for name in CAMERAS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2)).save(root / "maps/m.png")
    for name in CAMERAS:
        Image.new("RGB", (16, 9)).save(root / f"samples/{name}/a.png")
    for name, rows in tables.items():
        (root / VERSION / f"{name}.json").write_text(json.dumps(rows))
    return root
