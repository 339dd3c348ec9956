"""Measures time, in ratios between ways of doing the same work that take turns: `python run.py task=benchmark`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, ListConfig
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from prune2drive.data.datamodule import AUTO
from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.files import write_atomically
from prune2drive.report.charts import bars
from prune2drive.report.page import Section, render
from prune2drive.results.provenance import describe_run
from prune2drive.results.run_folder import RunFolder
from prune2drive.tasks.benchmark import frames, phases, prefill, selection
from prune2drive.tasks.benchmark.rounds import QUARTILES, Turns
from prune2drive.tasks.components import check_settings, refuse_options
from prune2drive.tasks.trainer import build_trainer

log = logging.getLogger(__name__)

Rows = Sequence[Mapping[str, Any]]
LISTS = {"parts", "shapes", "attention", "layers", "keep", "cameras", "tokens", "widths"}


class Part(NamedTuple):
    """Says how a part is measured and shown.

    Args:
        prepare: checks everything that can be wrong, and returns what yields the part's rows.
        names: number of columns, the first ones, that name a bar of its chart.
        bar: column of the bar's length.
        stroke: column of the stroke across it; empty for none.
        heading: its heading.
        note: what its columns are.
    """

    prepare: Callable[[DictConfig, Turns], Callable[[], Iterable[Mapping[str, Any]]]]
    names: int
    bar: str
    stroke: str
    heading: str
    note: str


PARTS = {
    "prefill": Part(
        *(prefill.prepare, 4, "time_ratio", "causal_flops_ratio", "Prefill, pruned by full"),
        "Bars: time ratio; strokes: FLOPs ratio, attention counted as causal, not as the full square of `flops ratio`.",
    ),
    "selection": Part(
        *(selection.prepare, 4, "ratio", "plain_ratio", "Farthest point sampling by the bare product of its tokens"),
        "Bars: ratio; strokes: that of the plain algorithm, one camera after another.",
    ),
    "frames": Part(
        *(frames.prepare, 2, "speedup", "", "Questions a second, by those answered alone"),
        "`question` and `frame` are values of batching; photos are read within the time. `other answers` than alone.",
    ),
    "end_to_end": Part(
        *(phases.prepare, 1, "ratio", "", "A question answered alone, pruned by full"),
        "Means in ms, of a question or, in decoding, a token; the prefill includes the selection.",
    ),
}


def run(cfg: DictConfig) -> float:
    """Measures the parts asked for; benchmark.json and report.html in the run folder grow with each.

    Returns:
        The median ratio of the first row: pruned by full prefill seconds, where that part is the first.

    Raises:
        InputError: bad input, before anything is measured.
    """
    task = cfg.task
    _check(cfg)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(task.threads)
    device = build_trainer(cfg.trainer, logger=False, enable_checkpointing=False).strategy.root_device
    folder, turns = RunFolder(cfg.folder), Turns(device, task.rounds, task.warm_up)
    work = {name: PARTS[name].prepare(cfg, turns) for name in task.parts}
    record = describe_run() | {"pruner": cfg.names.pruner, "rounds": task.rounds, "on": str(device)}
    found: dict[str, Rows] = {}
    for name, measure in work.items():
        log.info("measuring %s", name)
        found[name] = list(measure())
        record["load_average"] = [round(load, 1) for load in os.getloadavg()]
        folder.write_json("benchmark.json", record | found)
        write_page(folder.path / "report.html", record, found)
        _print(PARTS[name], found[name])
    Console().print(f"report: {folder.path / 'report.html'}", soft_wrap=True)
    return float(found[task.parts[0]][0][PARTS[task.parts[0]].bar] or "nan")


def _check(cfg: DictConfig) -> None:
    """Checks the settings that belong to no part alone.

    Raises:
        InputError: a list without values, an unknown part, or a setting that is out of range.
    """
    task = cfg.task
    for option in (task, task.prefill, task.selection):
        for key in LISTS & option.keys():
            if not (isinstance(option[key], ListConfig) and option[key]):
                raise InputError(f"task: {key}={option[key]}: give a list of one value or more, such as [a,b]")
    for name in task.parts:
        check_choice("task.parts", name, PARTS)
    for name, least in {"rounds": 1, "warm_up": 0, "threads": 1}.items():
        check_whole(f"task.{name}", task[name], least)
    check_settings(cfg)
    if cfg.batch_size == AUTO:
        raise InputError("batch_size=auto: a benchmark measures one size; give a number, such as an evaluation found")
    refuse_options(cfg, "task=benchmark", ("shard", "resume"))


def write_page(file: Path, record: Mapping[str, Any], found: Mapping[str, Rows]) -> None:
    """Writes the page, whole or not at all.

    Args:
        file: where.
        record: what was run, on what.
        found: part -> its rows.
    """
    facts = {key: str(record[key]) for key in ("command", "pruner", "device", "on", "threads", "load_average")}
    sentence = f"Medians of {record['rounds']} rounds with quartiles; each ratio is of one round's times."
    sections = [_section(name, rows) for name, rows in found.items()]
    html = render("sections.html", title="Measured time", sentence=sentence, facts=facts, sections=sections)
    write_atomically(file, [html])


def _section(name: str, rows: Rows) -> Section:
    part = PARTS[name]
    drawn = [row for row in rows if row[part.bar] is not None]
    values = {", ".join(f"{key} {row[key]}" for key in list(row)[: part.names]): row[part.bar] for row in drawn}
    ranges = [row[part.bar + QUARTILES] for row in drawn if part.bar + QUARTILES in row]
    strokes = [row[part.stroke] for row in drawn if part.stroke]
    return Section(part.heading, part.note, [bars(name, values, 1.0, ranges, strokes)], _cells(rows, list(rows[0])))


def _cells(rows: Rows, keys: Sequence[str]) -> list[list[str]]:
    """Returns the cells of a table, the header first."""
    return [[key.replace("_", " ") for key in keys], *([_text(row[key]) for key in keys] for row in rows)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return "" if value is None else str(value)


def _print(part: Part, rows: Rows) -> None:
    """Prints a part without quartiles, for which a terminal is too narrow."""
    header, *body = _cells(rows, [key for key in rows[0] if not key.endswith(QUARTILES)])
    table = Table(*header, title=part.heading, caption=part.note, box=SIMPLE, pad_edge=False)
    for line in body:
        table.add_row(*line)
    Console().print(table)
