"""Tiny files in STSBench's form."""

import json
from pathlib import Path

from PIL import Image

from prune2drive.cameras import CAMERAS
from prune2drive.data.stsbench import QUESTIONS, STSBench

WRONG = "Ego is braking,Ego is parking,Ego is idling,Ego is towing,Ego is racing"


def photo(camera, time, log="n1-log"):
    return f"samples/{camera}/{log}__{camera}__{100 + time}.png"


def boxes(*cameras, at=(100.0, 200.0, 300.0, 260.0)):
    return {"camera": {"bb2d": [list(at) for _ in cameras], "cam": list(cameras)}}


def tell(scenario="Ego is turning", negative=WRONG, times=3, log="n1-log", **more):
    """A scenario of the ego vehicle; `...` leaves out a field."""
    sensors = {name: [photo(name, time, log) for time in range(times)] for name in ("LIDAR_TOP", *CAMERAS)}
    entry = {"scenario": scenario, "negative_scenarios": negative, "sensors": sensors, "ego": {"yaw": [0.0] * times}}
    return {key: value for key, value in {**entry, **more}.items() if value is not ...}


def write(root: Path, *scenarios, content=None, **options) -> STSBench:
    """Writes a scenario file; one scenario by default."""
    (root / QUESTIONS).parent.mkdir(parents=True, exist_ok=True)
    (root / QUESTIONS).write_text(json.dumps(scenarios or [tell()]) if content is None else content)
    return STSBench(root, **options)


def draw(root: Path, times=3, log="n1-log") -> None:
    """Writes the photos of a clip, each in a colour of its time."""
    for camera in CAMERAS:
        (root / f"nuscenes/samples/{camera}").mkdir(parents=True, exist_ok=True)
        for time in range(times):
            Image.new("RGB", (16, 9), (time, 0, 0)).save(root / "nuscenes" / photo(camera, time, log))
