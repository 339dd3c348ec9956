"""Tiny files in DriveLM's layouts."""

import json
from pathlib import Path

from PIL import Image

from prune2drive.data.drivelm import DriveLM

SIX = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
SHOWN = (
    "1: <image> 2: <image> 3: <image> 4: <image> 5: <image> 6: <image>. These six images are the front view, front "
    "left view, front right view, back view, back left view and back right view of the ego vehicle."
)


def ask(text, answer="Nothing.", **more):
    return {"Q": text, "A": answer, "C": None, "con_up": None, "con_down": None, "cluster": None, "layer": None, **more}


def key_frame(name="f", objects=None, cameras=SIX, **stages):
    entry = {
        "QA": {stage: [ask(q) if isinstance(q, str) else q for q in rows] for stage, rows in stages.items()},
        "image_paths": {camera: f"../nuscenes/samples/{camera}/{name}__{camera}.png" for camera in cameras},
    }
    return entry if objects is None else {**entry, "key_object_infos": objects}


def scenes(**frames):
    return {"s": {"scene_description": "Rain.", "key_frames": frames}}


def conversation(name="s_f_0", question="<image>\nWho is near?", answer="A van.", cameras=SIX):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    images = [f"data/nuscenes/samples/{camera}/f__{camera}.png" for camera in cameras]
    return {"id": name, "image": images, "conversations": turns}


def write(root: Path, content, name="v1_1_train_nus.json", **options) -> DriveLM:
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return DriveLM(root, name, **options)


def draw(dataset: DriveLM) -> DriveLM:
    """Puts a small photo wherever the dataset expects one: 16 x 9, its colour from the camera's place in SIX."""
    for frame in dataset._frames:
        for camera, path in frame.paths.items():
            (dataset.images / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 9), (40 * SIX.index(camera), 0, 0)).save(dataset.images / path)
    return dataset
