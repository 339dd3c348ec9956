"""One table for a multirun: what the jobs were, what they scored and what they cost."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from prune2drive.files import write_atomically
from prune2drive.report.markdown import markdown_table
from prune2drive.report.run_page import BUDGETS

log = logging.getLogger(__name__)

COLUMNS = {
    "score": "score",
    "coverage/objects": "coverage",
    "tokens/nominal": "budget",
    "tokens/visual_kept": "kept",
    "tokens/layer_average": "layer avg",
    "flops/ratio": "FLOPs",
    "time/select_ms": "select ms",
    "time/prefill_ms": "prefill ms",
}

SHARES = ("score", "coverage/objects")  # shown with their 95 % interval


class Comparison(Callback):
    """Prints a table of all jobs when a multirun ends, and writes it, with all errors, as comparison.md."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        jobs = [job for path in sorted(folder.glob("*/metrics.json"), key=_job_number) if (job := _read(path))]
        if not jobs:
            return
        common = set.intersection(*(set(overrides) for overrides, _ in jobs)) if len(jobs) > 1 else set()
        columns = {key: name for key, name in COLUMNS.items() if any(key in metrics for _, metrics in jobs)}
        axes = sorted({_axis(path.parent) for path in folder.glob("*/metrics.json")})
        rows = [
            [" ".join(each for each in overrides if each not in common), *(_cell(metrics, key) for key in columns)]
            for overrides, metrics in jobs
        ]
        header = ["job", *columns.values()]
        caption = f"budget: {' or '.join(axes)}"
        lines = [*markdown_table(header, rows), "", caption]
        write_atomically(folder / "comparison.md", [f"{line}\n" for line in lines])
        table = Table(title=" ".join(sorted(common)) or None, caption=caption, box=SIMPLE, pad_edge=False)
        # A terminal is narrow: intervals, errors and what repeats another column are in the file.
        left_out = {"tokens/nominal", *(["coverage/objects"] if "score" in columns else [])}
        shown = [place for place, key in enumerate(columns, start=1) if key not in left_out]
        for name in ("job", *(header[place] for place in shown)):
            table.add_column(name, justify="left" if name == "job" else "right", no_wrap=name != "job")
        for row in rows:
            cells = (row[place].replace("[", "± ").partition(" ± ")[0] for place in shown)
            table.add_row(row[0].replace("ratios.", ""), *cells)
        console = Console()
        console.print(table)
        console.print(f"comparison: {folder / 'comparison.md'}", soft_wrap=True)


def _axis(job: Path) -> str:
    """What a job's budgets say."""
    try:
        config: Any = OmegaConf.load(job / ".hydra" / "config.yaml")
        axis = config.get("budget_axis", "final")
    except (OSError, ValueError):
        axis = "final"
    return BUDGETS.get(axis, axis)


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else 0, name)


def _read(path: Path) -> tuple[list[str], dict[str, float]] | None:
    """A job's overrides and metrics; None where its files cannot be read."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        overrides = list(OmegaConf.load(path.parent / ".hydra" / "overrides.yaml"))
    except (OSError, ValueError) as error:
        log.warning("%s is left out of the comparison (%s)", path.parent, error)
        return None
    return overrides, metrics


def _cell(metrics: dict[str, float], key: str) -> str:
    if key not in metrics:
        return ""
    value, stderr = metrics[key], metrics.get(f"{key}_stderr")
    if key in SHARES and stderr is not None:
        return f"{value:.3f} [{max(0.0, value - 1.96 * stderr):.3f}, {min(1.0, value + 1.96 * stderr):.3f}]"
    return f"{value:.3g}" + (f" ± {stderr:.1g}" if stderr else "")
