"""What a finished run shows: a table in the terminal, report.html, and its loggers' tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from prune2drive.report.drawing import camera_sheet
from prune2drive.report.html import write_report
from prune2drive.results import RunFolder
from prune2drive.sample import Prediction, Sample, TokenMap

TABLE_ROWS = 200
SHOWN = ("score", "accuracy", "language", "match_f1", "tokens/visual_full", "tokens/visual_kept", "flops/ratio")
TIMES = ("time/vision_ms", "time/select_ms", "time/prefill_ms", "time/decode_ms_per_token", "time/samples_per_s")


def save_picture(folder: Path, sample: Sample, token_map: TokenMap, kept: Mapping[str, Tensor]) -> Path:
    """Writes the sample's cameras, with the kept tokens clear, under `pictures/`."""
    views = {camera: (sample.images[camera], token_map.boxes(camera), kept[camera]) for camera in kept}
    path = folder / "pictures" / f"{sample.id}.png"
    path.parent.mkdir(exist_ok=True)
    camera_sheet(views, sample.question).save(path)
    return path


def publish(
    folder: RunFolder,
    run: dict[str, Any],
    metrics: dict[str, float],
    predictions: Sequence[Prediction],
    loggers: Iterable[Logger],
) -> None:
    """Shows a finished run everywhere it is looked at."""
    drawn = [(prediction, path) for prediction in predictions if (path := picture_of(folder, prediction)).is_file()]
    examples = [(prediction, Image.open(path)) for prediction, path in drawn]
    write_report(folder.path, run, metrics, examples)
    for logger in loggers:
        logger.log_metrics(metrics)
        if isinstance(logger, WandbLogger):
            _log_wandb(logger, run, predictions, drawn)
    _print(folder, run, metrics)


def picture_of(folder: RunFolder, prediction: Prediction) -> Path:
    return folder.path / "pictures" / f"{prediction.id}.png"


def _log_wandb(
    logger: WandbLogger,
    run: dict[str, Any],
    predictions: Sequence[Prediction],
    drawn: Sequence[tuple[Prediction, Path]],
) -> None:
    logger.log_hyperparams({key: run[key] for key in ("config", "choices", "git", "versions", "command")})
    columns = ["id", "question", "answer", "reference", "kept", "of", "error"]
    data = [
        [
            row.id,
            row.question,
            row.answer,
            row.reference,
            sum(row.kept_counts.values()),
            sum(row.full_counts.values()),
            row.error,
        ]
        for row in predictions[:TABLE_ROWS]
    ]
    logger.log_table("answers", columns=columns, data=data)
    if drawn:
        captions = [f"{row.question} -> {row.answer}" for row, _ in drawn]
        logger.log_image("kept tokens", [str(path) for _, path in drawn], caption=captions)
    logger.experiment.finish()


def _print(folder: RunFolder, run: dict[str, Any], metrics: Mapping[str, float]) -> None:
    choices = run["choices"]
    table = Table(title=" · ".join(str(choices[key]) for key in ("model", "dataset", "pruner", "ratios")))
    for column in ("metric", "value", "± standard error", "n"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for key in (key for key in (*SHOWN, *TIMES) if key in metrics):
        stderr, count = metrics.get(f"{key}_stderr"), metrics.get(f"{key}_n")
        table.add_row(
            key,
            f"{metrics[key]:.4g}",
            "" if stderr is None else f"{stderr:.2g}",
            "" if count is None else f"{count:.0f}",
        )
    console = Console()
    console.print(table)
    console.print(f"{run['counts']['done']} answered, {run['counts']['failed']} failed. Run folder: {folder.path}")
