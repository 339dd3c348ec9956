"""Made-up run folders: what an evaluation leaves behind, without a model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from prune2drive.metrics import efficiency
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.sample import Prediction

FULL = 100  # visual tokens
CAMERAS = ("CAM_FRONT", "CAM_BACK")
EXACT = {"_target_": "prune2drive.metrics.exact_match.ExactMatch"}
COLUMNS = {**ExactMatch.columns, **efficiency.COLUMNS}


def rows(right: Sequence[bool], questions: Sequence[int] | None = None, kinds=("count", "light"), per_scene=3):
    """Rows whose answers are right or wrong; `questions` are their numbers."""
    for number, is_right in zip(questions or range(len(right)), right, strict=True):
        scene = str(number // per_scene)
        yield Prediction(
            f"q{number}",
            f"{number}?",
            "Yes." if is_right else "No.",
            "Yes.",
            scene=scene,
            frame=f"{scene}-0",
            kind=kinds[number % len(kinds)],
        )


def run_folder(folder: Path, name: str, right: Sequence[bool], keep: float = 1.0, time: float = 10.0, **more) -> Path:
    """Writes a finished run.

    Args:
        folder: the run folder.
        name: the pruner.
        right: which answers are right.
        keep: share of the visual tokens that is kept.
        time: the milliseconds of a prefill.
        more: options of `rows`, `overrides`, and `config`: what run.json says of the configuration besides.
    """
    overrides = more.pop("overrides", [f"pruner={name}", f"ratios.keep={keep:g}"])
    config = {"metrics": EXACT, "budget_axis": "final"} | more.pop("config", {})
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
    columns = {key: asdict(column) for key, column in COLUMNS.items()}
    run = {"columns": columns, "status": "finished", "config": config}
    run |= {"choices": {"model": "made", "dataset": "up", "pruner": name}, "git": {"commit": "abc", "dirty": False}}
    (folder / "run.json").write_text(json.dumps(run))
    share = sum(right) / len(right)
    metrics = {"score": share, "score_stderr": (share * (1 - share) / len(right)) ** 0.5, "score_n": len(right)}
    tokens = {
        "visual_full": FULL,
        "visual_kept": FULL * keep,
        "nominal": FULL * keep,
        "layer_average": 50 + FULL * keep / 2,
    }
    metrics |= {f"tokens/{key}": value for key, value in tokens.items()}
    metrics |= {f"tokens/{camera}/kept": FULL * keep / 2 for camera in CAMERAS}
    metrics |= {"flops/ratio": 0.2 + 0.8 * keep}
    metrics |= {"time/prefill_ms": time, "time/prefill_ms_stderr": 1.0, "time/prefill_ms_n": 8}
    if keep < 1:
        metrics |= {"time/prefill_ratio": keep, "time/prefill_ratio_stderr": 0.01, "time/prefill_ratio_n": 8}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    lines = [json.dumps(row.to_row()) + "\n" for row in rows(right, **more)]
    (folder / "predictions.jsonl").write_text("".join(lines))
    return folder
