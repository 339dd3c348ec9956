"""Time and memory to open a question file as large as DriveLM's training file.

    python -m benchmarks.questions

Writes a synthetic `v1_1_train_nus.json` to a temporary folder and opens it in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prune2drive.cameras import CAMERAS
from prune2drive.data.drivelm import DriveLM

FRAMES, SCENES, STAGES = 4072, 696, {"perception": 33, "prediction": 29, "planning": 31, "behavior": 1}
OBJECTS = 5


def write(file: Path) -> int:
    """Writes frames with the training file's numbers of questions, and words of its lengths; returns the questions."""
    scenes: dict[str, dict[str, dict[str, object]]] = {f"{scene:032x}": {} for scene in range(SCENES)}
    for frame in range(FRAMES):
        token = f"{frame + 10**9:032x}"
        names = [f"<c{i},{CAMERAS[i % 6]},{frame % 1600}.5,{50 * i}.0>" for i in range(OBJECTS)]
        info = {"Category": "Vehicle", "Status": "Moving", "Visual_description": "Black sedan."}
        asked = {
            stage: [
                {
                    "Q": f"What is the moving status of object {names[i % OBJECTS]} seen {i} times, and what would "
                    "the ego vehicle do about it?",
                    "A": f"It is going ahead, so the ego vehicle keeps its lane and its speed, {frame} of {i}.",
                    **dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer")),
                }
                for i in range(count)
            ]
            for stage, count in STAGES.items()
        }
        paths = {camera: f"../nuscenes/samples/{camera}/n008__{camera}__{frame:016d}.jpg" for camera in CAMERAS}
        scenes[f"{frame % SCENES:032x}"][token] = {
            "key_object_infos": {name: info | {"2d_bbox": [1.0, 2.0, 30.5, 40.5]} for name in names},
            "QA": asked,
            "image_paths": paths,
        }
    content = {scene: {"scene_description": "", "key_frames": frames} for scene, frames in scenes.items()}
    file.write_text(json.dumps(content), encoding="utf-8")
    return FRAMES * sum(STAGES.values())


def measure(folder: str) -> dict[str, float]:
    start = time.perf_counter()
    dataset = DriveLM(folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"questions": len(dataset), "seconds": round(seconds, 1), "peak_mb": round(peak / 1e6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(measure(args.open)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "v1_1_train_nus.json"
        write(file)
        print(f"{file.stat().st_size / 1e6:.0f} MB", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.questions", "--open", folder], check=True)


if __name__ == "__main__":
    main()
