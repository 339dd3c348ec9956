"""A run as one self-contained page: what was run, how well, at what cost, and some of its answers."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from prune2drive.report.style import render
from prune2drive.sample import Prediction

GROUPS = ("model", "dataset", "pruner", "ratios")
SECTIONS = {
    "coverage": "Object coverage",
    "tokens": "Tokens",
    "flops": "Compute",
    "time": "Time",
    "memory": "Memory",
    "full": "Without pruning",
}
HIGHLIGHTS = {
    "score": "score",
    "tokens/visual_kept": "visual tokens kept",
    "tokens/visual_full": "visual tokens in full",
    "flops/ratio": "prefill compute",
}


class Row(NamedTuple):
    """One metric, ready to print."""

    key: str
    label: str
    value: str
    stderr: str
    samples: str


def write_report(
    folder: Path,
    run: dict[str, Any],
    metrics: dict[str, float],
    examples: Sequence[tuple[Prediction, Image.Image | None]],
) -> Path:
    """Writes `report.html` into the run folder, whole or not at all.

    Args:
        folder: the run folder.
        run: run.json's content; what it lacks is left out of the page.
        metrics: metrics.json's content. Keys under tokens/, flops/, time/ and memory/ are efficiency,
            those under full/ of a run without pruning, all others quality. `<key>_n` and `<key>_stderr`
            belong to `<key>`.
        examples: predictions to show, each with a picture such as `camera_sheet`'s, or None.

    Returns:
        The page's path.
    """
    rows = {row.key: row for row in _rows(metrics)}
    html = render(
        BODY,
        title=" · ".join(name for group in GROUPS if (name := _name(run, group))) or folder.name,
        command=_text(run.get("command") or ""),
        highlights={text: rows[key] for key, text in HIGHLIGHTS.items() if key in rows},
        facts=_facts(run),
        tables=_tables(rows),
        examples=[(prediction, _embedded(picture) if picture else "") for prediction, picture in examples],
    )
    report, draft = folder / "report.html", folder / ".report.html.tmp"
    draft.write_text(html, encoding="utf-8", errors="replace")
    os.replace(draft, report)
    return report


BUDGETS = {"final": "tokens after the last cut", "layer_average": "mean tokens over all layers"}
"""What a budget says, by `budget_axis`."""


def _name(run: Mapping[str, Any], group: str) -> str:
    """What was chosen in a config group: the option's name, or else the class it builds."""
    config = (run.get("config") or {}).get(group)
    built = config.get("_target_", "").rpartition(".")[2] if isinstance(config, Mapping) else _text(config)
    return str((run.get("choices") or {}).get(group) or built)


def _facts(run: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Heading -> (name, details): the config groups, then whatever else the run says about itself."""
    facts = {}
    for group in GROUPS:
        if name := _name(run, group):
            config = (run.get("config") or {}).get(group)
            facts[group] = (name, _text(config) if isinstance(config, Mapping) else "")
    if axis := (run.get("config") or {}).get("budget_axis"):
        facts["budget"] = (BUDGETS.get(axis, axis), "")
    said = {key: _text(value) for key, value in run.items() if key not in ("config", "choices", "command")}
    return facts | {key.replace("_", " "): ("", text) for key, text in said.items() if text}


def _text(value: Any) -> str:
    """A value of a configuration in one line, without what is unset or Hydra's own."""
    if isinstance(value, Mapping):
        shown = {key: _text(item) for key, item in value.items() if not str(key).startswith("_")}
        return ", ".join(f"{key} {text}" for key, text in shown.items() if text)
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)


def _tables(rows: Mapping[str, Row]) -> dict[str, list[Row]]:
    tables: dict[str, list[Row]] = {"Quality": [], **{heading: [] for heading in SECTIONS.values()}}
    for key, row in rows.items():
        tables[SECTIONS.get(key.partition("/")[0], "Quality")].append(row)
    return {heading: table for heading, table in tables.items() if table}


def _rows(metrics: Mapping[str, float]) -> list[Row]:
    """Each metric with its standard error and count beside it instead of below."""
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
                _label(key),
                f"{_number(metrics[key] * scale)} {unit}".rstrip(),
                "" if error is None else f"± {_number(error * scale, digits=2)}",
                "" if count is None else f"{count:,.0f}",
            )
        )
    return rows


def _unit(key: str, value: float) -> tuple[float, str]:
    """By what to multiply a metric, and the unit it then has."""
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


def _label(key: str) -> str:
    """The key as words, without the heading and the unit it is printed under."""
    prefix, _, rest = key.partition("/")
    parts = (rest if prefix in SECTIONS else key).split("/")
    words = (part if part.isupper() else re.sub("_(ms|mb)(?=_|$)", "", part).replace("_", " ") for part in parts)
    return " ".join(words)


def _number(value: float, digits: int = 4) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _embedded(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


BODY = """\
{% if command %}
<code class="command">{{ command }}</code>
{% endif %}
{% if highlights %}
<div class="tiles">
{% for text, row in highlights.items() %}
<div class="card"><div class="faint">{{ text }}</div><span class="big">{{ row.value }}</span>
<span class="faint">{{ row.stderr }}</span></div>
{% endfor %}
</div>
{% endif %}
{% if facts %}
<dl class="card">
{% for heading, (name, details) in facts.items() %}
<dt>{{ heading }}</dt><dd>{% if name %}<b>{{ name }}</b> {% endif %}<span class="faint">{{ details }}</span></dd>
{% endfor %}
</dl>
{% endif %}
{% if tables %}
<h2>Results</h2>
<div class="tables">
{% for heading, rows in tables.items() %}
<section class="card{{ ' wide' if loop.first }}">
<h3>{{ heading }}</h3>
<table>
<tr><th></th><th>mean</th><th>standard error</th><th>n</th></tr>
{% for row in rows %}
<tr><td title="{{ row.key }}">{{ row.label }}</td><td>{{ row.value }}</td><td class="faint">{{ row.stderr }}</td>
<td class="faint">{{ row.samples }}</td></tr>
{% endfor %}
</table>
</section>
{% endfor %}
</div>
{% endif %}
{% if examples %}
<h2>Examples</h2>
{% for prediction, picture in examples %}
<article class="card example">
<h3><code>{{ prediction.id }}</code></h3>
<dl>
<dt>question</dt><dd>{{ prediction.question }}</dd>
{% if prediction.error %}
<dt>error</dt><dd class="bad">{{ prediction.error }}</dd>
{% elif prediction.answer is not none %}
<dt>answer</dt><dd><b>{{ prediction.answer }}</b></dd>
{% endif %}
{% if prediction.reference is not none %}
<dt>reference</dt><dd>{{ prediction.reference }}</dd>
{% endif %}
{% if prediction.kept_counts %}
<dt>kept</dt><dd class="kept">
{%- for camera, count in prediction.kept_counts.items() -%}
<span>{{ camera }} <b>{{ count }}</b>
{%- if camera in prediction.full_counts %} of {{ prediction.full_counts[camera] }}{% endif -%}
</span> {% endfor %}</dd>
{% endif %}
</dl>
{% if picture %}
<img src="{{ picture }}" alt="kept tokens of {{ prediction.id }}">
{% endif %}
</article>
{% endfor %}
{% endif %}
</body>
</html>
"""
