"""Lays out a W&B project's dashboard from what its runs log.

    python -m prune2drive.report.wandb_workspace                     # of the runs in outputs/, saved to your project
    python -m prune2drive.report.wandb_workspace RUN SWEEP --entity team --project prune2drive
    python -m prune2drive.report.wandb_workspace --json              # shows the layout; needs no W&B key and no network

Every save makes a view of its own; the project's other views stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.metrics.base import SCORE, Column
from prune2drive.report.columns import columns_of
from prune2drive.report.wandb import keys

try:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import Ordering, Summary
except ImportError:  # of an extra
    ws: Any = None  # type: ignore[no-redef]  # a module where it is installed

NAME = "Prune2Drive"
INSTALL = "the dashboard needs pip install 'prune2drive[workspace]'"
(HEADLINE,) = SCORE


def workspace(entity: str, project: str, columns: Mapping[str, Column], metrics: Iterable[str]) -> Any:
    """Returns a project's dashboard; panels of metrics that no run has are left out.

    Args:
        entity: the user or team of the project.
        project: its name.
        columns: key of metrics.json -> how tables show it.
        metrics: the keys that runs have.

    Raises:
        InputError: the package that builds it is not installed.
    """
    if ws is None:
        raise InputError(INSTALL)
    has = keys.charted(metrics)
    known = {key: column for key, column in columns.items() if key in has}
    compared = [key for key, column in known.items() if column.in_comparison]
    sections = {
        "Score against cost": _scatters(known),
        "Tokens of each camera": [
            *_bars("Tokens kept of each camera", keys.kept_by_camera(has)),
            *_bars("Objects that keep a token", _coverage(has)),
            _chart(keys.CAMERAS),
        ],
        "Question types": [
            _chart(keys.TYPES),
            *_bars("Scores", [key for key, column in known.items() if column.is_share]),
        ],
        "Latency": [
            *_bars("Milliseconds of a question alone", [key for key in has if _is_latency(key)]),
            _chart(keys.LATENCY),
        ],
        "Answers": [panels.WeavePanelSummaryTable(table_name=keys.ANSWERS)],
        "Kept tokens": [panels.MediaBrowser(title="Kept tokens", media_keys=[keys.PICTURES])],
        "Search": [
            panels.LinePlot(title="Objective", x=keys.TRIAL, y=[keys.BEST, keys.OBJECTIVE]),
            panels.LinePlot(title="Keep ratios", x=keys.TRIAL, metric_regex=f"{keys.RATIO}.*"),
            _chart(keys.IMPORTANCE),
            _chart(keys.FRONT),
        ],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[ws.Section(name=name, panels=shown, is_open=True) for name, shown in sections.items() if shown],
        runset_settings=ws.RunsetSettings(
            pinned_columns=[f"summary:{key}" for key in compared],
            order=[Ordering(Summary(HEADLINE), ascending=False)],
        ),
    )


def _scatters(columns: Mapping[str, Column]) -> list[Any]:
    """Returns plots of the score against everything that it costs."""
    if HEADLINE not in columns:
        return []
    score = panels.SummaryMetric(HEADLINE)
    return [
        panels.ScatterPlot(
            title=f"{HEADLINE} against {column.axis or column.label}", x=panels.SummaryMetric(key), y=score
        )
        for key, column in columns.items()
        if column.is_cost
    ]


def _coverage(metrics: Sequence[str]) -> list[str]:
    """Returns the keys that say which share of a camera's objects keeps a token, and of all objects."""
    cameras = (key.split("/")[1] for key in keys.kept_by_camera(metrics))
    return [key for key in ("coverage/objects", *(f"coverage/{camera}" for camera in cameras)) if key in metrics]


def _is_latency(key: str) -> bool:
    return key.startswith("time/") and "_ms" in key


def _bars(title: str, metrics: Sequence[str]) -> list[Any]:
    return [panels.BarPlot(title=title, metrics=[panels.Metric(key) for key in metrics])] if metrics else []


def _chart(key: str) -> Any:
    """Returns a chart that runs log, for all runs that are shown."""
    kind, axes = ("bar", ("label", "value")) if key in keys.BARS else ("scatter", ("x", "y"))
    return panels.CustomChart(
        query={"summaryTable": {"tableKey": f"{key}_table"}},
        chart_name=f"wandb/{kind}/v0",
        chart_fields=dict(zip(axes, (keys.BARS | keys.POINTS)[key], strict=True)),
        chart_strings={"title": key},
    )


def logged(folders: Sequence[Path]) -> tuple[dict[str, Column], list[str]]:
    """Returns the columns and the keys of metrics of all runs in folders.

    Raises:
        InputError: there is no finished run, or one is damaged.
    """
    columns: dict[str, Column] = {}
    metrics: dict[str, None] = {}
    for file in sorted(file for folder in folders for file in folder.rglob("metrics.json")):
        columns |= columns_of(read_json(file.with_name("run.json")))
        metrics |= dict.fromkeys(read_json(file))
    if not metrics:
        places = ", ".join(map(str, folders))
        raise InputError(f"{places}: no finished run, whose metrics a dashboard would show; `python run.py` makes one")
    return columns, list(metrics)


def save(dashboard: Any) -> str:
    """Saves a dashboard to W&B and returns its URL.

    Raises:
        InputError: the machine has no W&B key, or W&B does not take it.
    """
    if not wandb.login(prompt=False, verify=False):
        raise InputError("no W&B key on this machine; run `wandb login`, or look at the layout with --json")
    try:
        dashboard.entity = dashboard.entity or wandb.Api().default_entity
        return dashboard.save().url
    except Exception as error:  # of W&B's client, of many kinds
        raise InputError(f"W&B did not take the dashboard: {' '.join(str(error).split())}") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line above; exits with 2 after one line on stderr where something is wrong."""
    parser = argparse.ArgumentParser(
        "python -m prune2drive.report.wandb_workspace",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="of runs or sweeps; default: outputs")
    parser.add_argument("--entity", default="", help="user or team of the project; default: the key's")
    parser.add_argument("--project", default="prune2drive", help="default: %(default)s")
    parser.add_argument("--json", "--dry-run", action="store_true", help="print the layout instead of saving it")
    options = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        dashboard = workspace(options.entity, options.project, *logged(options.folders or [Path("outputs")]))
        print(json.dumps(dashboard._spec, indent=2) if options.json else save(dashboard))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
