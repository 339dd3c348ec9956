"""Writes a run's report.html: the verdict, the tokens of each question, scores, costs, and what was run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prune2drive.cameras import short_name
from prune2drive.files import write_atomically
from prune2drive.metrics.efficiency import COLUMNS, budget_share
from prune2drive.metrics.intervals import Interval, share_interval
from prune2drive.report import numbers
from prune2drive.report.columns import ALL_TOKENS, BUDGETS, columns_of, spread
from prune2drive.report.explorer import explore
from prune2drive.report.finished_run import FinishedRun
from prune2drive.report.page import render
from prune2drive.report.paired import Paired, compare
from prune2drive.report.run_bars import bars_of
from prune2drive.report.run_tables import cameras_table, coverage_table, kinds_table, scores_table
from prune2drive.results.run_folder import FULL, IN_FULL

GROUPS = ("model", "dataset", "pruner", "ratios")
REPORT = "report.html"
ENDS = ("_stderr", "_n")  # of the keys beside a mean's
UNSAID = ("config", "choices", "command", "columns", "format", "parts", "is_noise", "counts")
"""Fields of run.json that the list of facts leaves out; the folder has them."""

Metrics = Mapping[str, float]


def write_report(folder: Path, run: Mapping[str, Any], metrics: Metrics) -> Path:
    """Writes `report.html` into the run folder, whole or not at all.

    Args:
        folder: the run folder; where it holds the same questions with all tokens, in `full/`, the page compares both.
        run: run.json's content; fields that it lacks are absent from the page.
        metrics: metrics.json's content.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written.
    """
    pruned = FinishedRun(folder, dict(run))
    has_full = any(key.startswith(f"{IN_FULL}tokens/") for key in metrics)
    full = FinishedRun(folder / FULL, dict(run)) if has_full else None
    paired = compare(pruned, full)
    columns = columns_of(run)
    change = _change(paired, metrics)
    method = ALL_TOKENS if budget_share(metrics) == 1 and not full else _name(run, "pruner")
    name = method or "this run"
    runs = {ALL_TOKENS: full, name: pruned} if full else {name: pruned}
    explored = explore(runs)
    tables = [
        scores_table(metrics, columns, paired),
        kinds_table(paired, bool(explored)),
        cameras_table(paired, metrics, bool(explored)),
        coverage_table(paired),
    ]
    html = render(
        "run.html",
        title=_title(run, method) or folder.name,
        verdict=verdict(metrics, pruned.question_score if paired.scores.n else "", change, paired),
        warnings=_warnings(run),
        explorer=explored,
        tables=[table for table in tables if table],
        bars=bars_of(metrics),
        budgets=_budgets(metrics),
        command=_text(run.get("command") or ""),
        facts=_facts(run),
        numbers=_all_numbers(metrics),
    )
    report = folder / REPORT
    write_atomically(report, [html])
    return report


def _title(run: Mapping[str, Any], method: str) -> str:
    """Returns the names of what was chosen, each once; ratios that drop nothing are none of them."""
    names = [_name(run, "model"), _name(run, "dataset"), method]
    if method != ALL_TOKENS:
        names.append(_name(run, "ratios"))
    return " · ".join(dict.fromkeys(filter(None, names)))


def _change(paired: Paired, metrics: Metrics) -> Interval | None:
    """Returns the paired difference of the headline score; None where that is no mean of questions' scores."""
    return paired.scores.difference() if paired.scores.average_to(metrics.get("score")) else None


def verdict(metrics: Metrics, scored: str, change: Interval | None, paired: Paired) -> str:
    """Says in a sentence what was kept, how well questions were answered, and what that saved.

    Args:
        metrics: metrics.json's content.
        scored: what the score of a single question says, such as `answers right`; used where the headline is its mean.
        change: the paired difference of the headline from that with all tokens, where it is known.
        paired: the scores of both runs.
    """
    said = [part for part in (_kept(metrics), _scored(metrics, scored, change, paired), _saved(metrics)) if part]
    return f"{'; '.join(said)}." if said else ""


def _kept(metrics: Metrics) -> str:
    kept, full = metrics.get("tokens/visual_kept"), metrics.get("tokens/visual_full")
    if not kept or not full:
        return ""
    if kept == full:
        return f"Keeps all {numbers.number(full)} visual tokens"
    return (
        f"Keeps {numbers.percent(kept / full)} of the visual tokens ({numbers.number(kept)} of {numbers.number(full)})"
    )


def _scored(metrics: Metrics, scored: str, change: Interval | None, paired: Paired) -> str:
    key = next((key for key in ("score", "coverage/objects") if key in metrics), "")
    if not key:
        return ""
    is_mean = key == "score" and scored and paired.scores.average_to(metrics[key])
    label = scored if is_mean else "score" if key == "score" else "objects that keep a token"

    def said(share: str) -> str:
        return f"{label} {share}" if label == "score" else share.replace("%", f"% {label}", 1)

    own, before = metrics[key], metrics.get(IN_FULL + key)
    if before is None:
        stderr = metrics.get(f"{key}_stderr") or 0.0
        return said(numbers.share_range(share_interval(own, stderr)))
    compared = f"{said(numbers.percent(own))} against {numbers.percent(before)} with {ALL_TOKENS}"
    if change is None:
        return compared
    noise = ", no more than noise" if change.low <= 0 <= change.high else ""
    return f"{compared}, {numbers.points(change)}{noise}"


def _saved(metrics: Metrics) -> str:
    flops = metrics.get("flops/ratio")
    said = [_speed(metrics)] if metrics.get("time/prefill_ratio") else []
    if flops and flops != 1:
        said.append(f"with {numbers.percent(flops)} of the FLOPs")
    return f"prefill {', '.join(said)}" if said else ""


def _speed(metrics: Metrics) -> str:
    """Says how many times as fast the prefill is, with its interval and the number of timed questions."""
    time = spread(metrics, "time/prefill_ratio", COLUMNS["time/prefill_ratio"])
    faster = 1 / metrics["time/prefill_ratio"]
    if time is None or not 0 < time.low < time.high:
        return f"{faster:.1f} times as fast"
    span = f"[{1 / time.high:.1f},{numbers.NBSP}{1 / time.low:.1f}]"
    return f"{faster:.1f} {span} times as fast ({time.n:,} questions timed)"


def _warnings(run: Mapping[str, Any]) -> list[str]:
    """Says what a reader must know before believing the page."""
    said = []
    if run.get("is_noise"):
        said.append("The model's weights are random: its answers and scores are noise, only counts mean something.")
    counts = run.get("counts") or {}
    if failed := counts.get("failed"):
        said.append(f"{failed:,} of {counts.get('planned', 0):,} questions failed and are not in the scores.")
    return said


def _budgets(metrics: Metrics) -> dict[str, tuple[float, str]]:
    """Returns camera -> mean of kept tokens, where cameras differ."""
    kept = {key.split("/")[1]: value for key, value in metrics.items() if key.endswith("/kept") and key.count("/") == 2}
    own = {camera: value for camera, value in kept.items() if f"tokens/{camera}/kept" in metrics}
    if len(set(own.values())) < 2:
        return {}
    return {short_name(camera): (value / max(own.values()), numbers.number(value)) for camera, value in own.items()}


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
    others = {key: _text(value) for key, value in run.items() if key not in UNSAID}
    return facts | {key.replace("_", " "): ("", text) for key, text in others.items() if text}


def _text(value: Any) -> str:
    """Returns a configuration value in one line, without what is unset and without Hydra's own fields."""
    if isinstance(value, Mapping):
        shown = {key: _text(item) for key, item in value.items() if not str(key).startswith("_")}
        return ", ".join(f"{key} {text}" for key, text in shown.items() if text)
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)


def _all_numbers(metrics: Metrics) -> list[list[str]]:
    """Returns metrics.json as rows: the key, its value, its standard error and of how many."""
    companions = {f"{key}{end}" for key in metrics for end in ENDS}
    return [
        [key, f"{value:.6g}", *(f"{metrics[key + end]:.6g}" if key + end in metrics else "" for end in ENDS)]
        for key, value in metrics.items()
        if key not in companions
    ]
