"""Writes a run's report.html: what was run, how well it did, at what cost, and some of its answers."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from prune2drive.files import write_atomically
from prune2drive.report.columns import BUDGETS, columns_of
from prune2drive.report.page import render
from prune2drive.sample import Prediction

GROUPS = ("model", "dataset", "pruner", "ratios")
QUALITY = "Quality"
TIME = "Time: ms of questions answered one at a time, samples per s of the whole run"
HEADINGS = {"coverage": "Object coverage", "flops": "Compute", "full": "Without pruning", "time": TIME}
"""The part of a key before its slash -> the heading of its table, where the part itself is not that."""


class Row(NamedTuple):
    """A metric as the page prints it.

    Args:
        key: the metric's key in metrics.json.
        name: the key as words.
        label: the key as words without the part before its slash.
        value: the mean with its unit.
        stderr: the mean's standard error; empty where it is unknown.
        samples: how many values the mean is of; empty where it is unknown.
    """

    key: str
    name: str
    label: str
    value: str
    stderr: str
    samples: str


def write_report(
    folder: Path, run: Mapping[str, Any], metrics: Mapping[str, float], examples: Sequence[tuple[Prediction, Path]]
) -> Path:
    """Writes `report.html` into the run folder, whole or not at all.

    Args:
        run: run.json's content; fields that it lacks are absent from the page. The metrics that it compares runs
            by (its `columns`) are shown large.
        metrics: metrics.json's content. Keys with the same part before a slash are a table, those without a slash
            are quality. `<key>_n` and `<key>_stderr` are printed beside `<key>`.
        examples: predictions to show, and the picture of the tokens that were kept for each.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written.
    """
    rows = {row.key: row for row in _rows(metrics)}
    columns = {key: column for key, column in columns_of(run).items() if column.in_run}
    html = render(
        "run.html",
        title=" · ".join(name for group in GROUPS if (name := _name(run, group))) or folder.name,
        command=_text(run.get("command") or ""),
        highlights=[rows[key] for key, column in columns.items() if column.in_comparison and key in rows],
        facts=_facts(run),
        tables=_tables(rows),
        examples=[(prediction, _embedded(picture)) for prediction, picture in examples],
    )
    report = folder / "report.html"
    write_atomically(report, [html])
    return report


def _name(run: Mapping[str, Any], group: str) -> str:
    """Returns what was chosen in a config group: the option's name, or else the class that the group builds."""
    config = (run.get("config") or {}).get(group)
    built = config.get("_target_", "").rpartition(".")[2] if isinstance(config, Mapping) else _text(config)
    return str((run.get("choices") or {}).get(group) or built)


def _facts(run: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Returns heading -> (name, details): the config groups, then everything else that run.json says."""
    facts = {}
    for group in GROUPS:
        if name := _name(run, group):
            config = (run.get("config") or {}).get(group)
            facts[group] = (name, _text(config) if isinstance(config, Mapping) else "")
    if axis := (run.get("config") or {}).get("budget_axis"):
        facts["budget"] = (BUDGETS.get(axis, axis), "")
    others = {
        key: _text(value)
        for key, value in run.items()
        if key not in ("config", "choices", "command", "columns", "format", "parts")
    }
    return facts | {key.replace("_", " "): ("", text) for key, text in others.items() if text}


def _text(value: Any) -> str:
    """Returns a configuration value in one line, without what is unset and without Hydra's own fields."""
    if isinstance(value, Mapping):
        shown = {key: _text(item) for key, item in value.items() if not str(key).startswith("_")}
        return ", ".join(f"{key} {text}" for key, text in shown.items() if text)
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)


def _tables(rows: Mapping[str, Row]) -> dict[str, list[Row]]:
    """Returns heading -> the rows below it, quality first."""
    tables: dict[str, list[Row]] = {QUALITY: []}
    for key, row in rows.items():
        part, slash, _ = key.partition("/")
        heading = HEADINGS.get(part, part.capitalize()) if slash else QUALITY
        tables.setdefault(heading, []).append(row)
    return {heading: table for heading, table in tables.items() if table}


def _rows(metrics: Mapping[str, float]) -> list[Row]:
    """Returns the metrics as rows, each with its standard error and count."""
    companions = {f"{key}{suffix}" for key in metrics for suffix in ("_n", "_stderr")}
    rows = []
    for key in metrics:
        if key in companions:
            continue
        scale, unit = _unit(key.removeprefix("full/"), metrics[key])
        count, error = metrics.get(f"{key}_n"), metrics.get(f"{key}_stderr")
        rows.append(
            Row(
                key,
                _words(key),
                _words(key.partition("/")[2] or key),
                f"{_number(metrics[key] * scale)} {unit}".rstrip(),
                "" if error is None else f"± {_number(error * scale, digits=2)}",
                "" if count is None else f"{count:,.0f}",
            )
        )
    return rows


def _unit(key: str, value: float) -> tuple[float, str]:
    """Returns the factor that brings a metric to a readable unit, and that unit."""
    if key == "flops/ratio":
        return 100, "%"
    if key.startswith("flops/"):
        ladder = [(1e-12, "TFLOPs"), (1e-9, "GFLOPs"), (1e-6, "MFLOPs"), (1, "FLOPs")]
    elif key.startswith("memory/") and key.endswith("_mb"):
        ladder = [(1e-3, "GB"), (1, "MB")]
    elif key.startswith("time/") and "_ms" in key:
        ladder = [(1e-3, "s"), (1, "ms")]
    else:
        ladder = [(1, "")]
    return next((step for step in ladder if abs(value) * step[0] >= 1), ladder[-1])


def _words(key: str) -> str:
    """Returns a key as words, without its unit."""
    parts = key.split("/")
    words = (part if part.isupper() else re.sub("_(ms|mb)(?=_|$)", "", part).replace("_", " ") for part in parts)
    return " ".join(words)


def _number(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _embedded(picture: Path) -> str:
    """Returns a picture file as a JPEG data URL, which is smaller than the PNG it is made of."""
    stream = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(stream, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
