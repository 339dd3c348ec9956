"""What a finished run shows: a table in the terminal, report.html, and pictures of the kept tokens."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prune2drive.report.run_page import write_report
from prune2drive.report.token_overlay import camera_sheet
from prune2drive.sample import Prediction, Sample
from prune2drive.token_map import TokenMap

LONGEST_NAME = 200  # file systems allow 255 bytes
SHOWN = (
    "score",
    "exact_match",
    "final",
    "judge",
    "rubric/overall",
    "mcq_accuracy",
    "accuracy",
    "language",
    "match",
    "match_f1",
    "similarity",
    "coverage/objects",
)
COSTS = (
    "tokens/visual_full",
    "tokens/visual_kept",
    "flops/ratio",
    "time/vision_ms",
    "time/select_ms",
    "time/prefill_ms",
    "time/decode_ms_per_token",
    "time/samples_per_s",
)


def save_picture(
    folder: Path, sample: Sample, images: Mapping[str, Image.Image], token_map: TokenMap, kept: Mapping[str, Tensor]
) -> Path:
    """Writes the sample's cameras, with the kept tokens clear, under `pictures/`."""
    views = {camera: (images[camera], token_map.boxes(camera), kept[camera]) for camera in kept}
    path = _picture_file(folder, sample.id)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_name(".draft.png")  # a kill must not leave half a picture for a resumed run to open
    camera_sheet(views, sample.question).save(draft)
    return draft.replace(path)


def pictures(folder: Path, predictions: Sequence[Prediction]) -> list[tuple[Prediction, Path]]:
    """The pictures that `save_picture` wrote, with the answers they belong to."""
    files = ((prediction, _picture_file(folder, prediction.id)) for prediction in predictions)
    return [(prediction, file) for prediction, file in files if file.is_file()]


def _picture_file(folder: Path, sample_id: str) -> Path:
    """A file for any id, those with slashes and of any length included."""
    name = quote(sample_id, safe="", errors="backslashreplace")
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / "pictures" / f"{name}.png"


def show(
    folder: Path,
    run: dict[str, Any],
    metrics: dict[str, float],
    predictions: Sequence[Prediction],
    done: str = "answered",
) -> None:
    """Writes report.html and prints the table; `done` is what was done to a question."""
    examples = [(prediction, Image.open(path)) for prediction, path in pictures(folder, predictions)]
    report = write_report(folder, run, metrics, examples)
    console = Console()
    title = " · ".join(str(name) for name in run["choices"].values())
    console.print((_versus if any(key.startswith("full/") for key in metrics) else _alone)(title, metrics))
    counts = run["counts"]
    console.print(f"{counts['done']} of {counts['planned']} questions {done}, {counts['failed']} failed")
    if run["is_noise"]:
        console.print("The model's weights are random: its answers and scores are noise, only counts mean something.")
    console.print(f"report: {report}", soft_wrap=True)


def _alone(title: str, metrics: Mapping[str, float]) -> Table:
    """What was measured, with standard errors."""
    table = Table(title=title)
    for column in ("metric", "value", "± standard error", "n"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for key in (key for key in (*SHOWN, *COSTS) if key in metrics):
        digits = ".4f" if key in SHOWN else ".4g"
        stderr, count = metrics.get(f"{key}_stderr"), metrics.get(f"{key}_n")
        cells = "" if stderr is None else format(stderr, digits), "" if count is None else f"{count:.0f}"
        table.add_row(key, format(metrics[key], digits), *cells)
    return table


def _versus(title: str, metrics: Mapping[str, float]) -> Table:
    """All tokens beside those that were kept; quality with its 95 % interval."""
    table = Table(title=title)
    for column in ("metric", "all tokens", "pruned"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for key in (key for key in (*SHOWN, *COSTS) if key in metrics):
        show_value = _interval if key in SHOWN else _plain
        table.add_row(key, *(show_value(metrics, name) for name in (f"full/{key}", key)))
    return table


def _plain(metrics: Mapping[str, float], key: str) -> str:
    return f"{metrics[key]:.4g}" if key in metrics else ""


def _interval(metrics: Mapping[str, float], key: str) -> str:
    """A share with 1.96 standard errors either side, as far as shares go."""
    if key not in metrics:
        return ""
    value, half = metrics[key], 1.96 * metrics.get(f"{key}_stderr", math.nan)
    return f"{value:.3f} [{max(0.0, value - half):.3f}, {min(1.0, value + half):.3f}]"
