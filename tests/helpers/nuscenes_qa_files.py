"""Tiny files in NuScenes-QA's form, beside tables of nuScenes."""

import json
from pathlib import Path

from helpers import nuscenes_tables
from prune2drive.data.nuscenes_qa import QUESTIONS, NuScenesQA

FRAMES = {"f": "s", "g": "s", "h": "t"}  # sample token -> scene


def ask(question="Are there any cars?", answer="yes", token="f", hops=0, template="exist", **more):
    named = {"question": question, "answer": answer, "sample_token": token, "num_hop": hops, "template_type": template}
    return {key: value for key, value in {**named, **more}.items() if value is not ...}


def write(root: Path, *questions: dict, content=None, annotations=(), **options) -> NuScenesQA:
    """Writes tables and a question file; a question about a car by default."""
    root.mkdir(parents=True, exist_ok=True)
    nuscenes_tables.write(root, *annotations)
    file = root / nuscenes_tables.VERSION / "sample.json"
    (first,) = json.loads(file.read_text())
    file.write_text(json.dumps([{**first, "token": token, "scene_token": scene} for token, scene in FRAMES.items()]))
    _give_photos(root)
    asked = {"info": {}, "split": "val", "questions": list(questions or [ask()])}
    (root / QUESTIONS).write_text(json.dumps(asked if content is None else content))
    return NuScenesQA(root, **{"nuscenes": root, "version": nuscenes_tables.VERSION, **options})


def _give_photos(root: Path) -> None:
    """Gives every sample of the tables photos of its own, `<token>.png`."""
    file = root / nuscenes_tables.VERSION / "sample_data.json"
    rows = json.loads(file.read_text())
    shots = []
    for token in FRAMES:
        for row in rows:
            name = f"samples/{row['token'].removeprefix('d-')}/{token}.png"
            (root / name).write_bytes((root / row["filename"]).read_bytes())
            shots.append({**row, "token": f"{row['token']}-{token}", "sample_token": token, "filename": name})
    file.write_text(json.dumps(shots))
