"""Tiny files in GoldenViewVQA's form."""

import json
from pathlib import Path

from PIL import Image

from prune2drive.cameras import CAMERAS
from prune2drive.data.goldenview import QUESTIONS, GoldenViewVQA


def ask(id="q1", question="What blocks the lane?", view="CAM_BACK", answer="B", token="f", scene="scene-1", **more):
    entry = {
        "question_id": id,
        "scene_name": scene,
        "sample_token": token,
        "frame_idx": "f03",
        "time_s": "1.5",
        "question_group": "causality",
        "question": question,
        "views": {camera: f"samples/{camera}/{token}.png" for camera in CAMERAS},
        "golden_view": view,
        "options": {"A": "A cone.", "B": "A van.", "C": "A bus.", "D": "Nothing."},
        "gold_answer_id": answer,
        "gold_answer_text": "A van.",
    }
    return {key: value for key, value in {**entry, **more}.items() if value is not ...}


def write(root: Path, *questions, content=None, **options) -> GoldenViewVQA:
    """Writes a question file; one question by default."""
    text = "\n".join(json.dumps(each) for each in questions or [ask()]) + "\n"
    (root / QUESTIONS).parent.mkdir(parents=True, exist_ok=True)
    (root / QUESTIONS).write_text(text if content is None else content)
    return GoldenViewVQA(root, **options)


def draw(root: Path, *tokens: str) -> None:
    """Writes the photos of frames."""
    for token in tokens:
        for camera in CAMERAS:
            (root / f"nuscenes/samples/{camera}").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 9)).save(root / f"nuscenes/samples/{camera}/{token}.png")
