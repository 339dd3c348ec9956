"""Run folders as evaluations leave them, made up without a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from prune2drive.metrics.object_coverage import count_covered_objects
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.results.selections import Selections, selection_of
from prune2drive.sample import ObjectBox, Prediction, Sample, TokenMap, pack_indices

SIDE = 8
TOKENS = SIDE * SIDE
EXACT = {"_target_": "prune2drive.metrics.exact_match.ExactMatch"}


def write_run(
    folder: Path,
    samples: Iterable[Sample],
    answers: Sequence[str | None],
    keep: int = TOKENS,
    dataset: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    ordered: bool = True,
    seed: int = 0,
) -> list[Prediction]:
    """Writes a run of the samples, each camera of which has 8 x 8 tokens, and returns its rows.

    Args:
        folder: the run folder.
        samples: the questions.
        answers: an answer for each.
        keep: how many tokens of each camera are kept, picked at random.
        dataset: the dataset's configuration.
        metrics: the metric's configuration.
        ordered: whether the tokens were picked in an order.
        seed: seed of what is picked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator, rows, selections = torch.Generator().manual_seed(seed), [], []
    for sample, answer in zip(samples, answers, strict=True):
        spans = {camera: (at * TOKENS, (at + 1) * TOKENS) for at, camera in enumerate(sample.cameras)}
        token_map = TokenMap.from_spans(spans, TOKENS * len(spans))
        picked = {camera: torch.randperm(TOKENS, generator=generator)[:keep] for camera in spans}
        if not ordered or keep == TOKENS:
            picked = {camera: indices.sort().values for camera, indices in picked.items()}
        kept = {camera: pack_indices(indices, TOKENS) for camera, indices in picked.items()}
        objects = count_covered_objects(sample, token_map, {name: each.sort().values for name, each in picked.items()})
        counts = {
            "objects": objects,
            "full_counts": token_map.counts,
            "kept_counts": dict.fromkeys(spans, keep),
            "kept": kept,
        }
        rows.append(Prediction.of(sample, answer=answer, **counts))
        selections.append(selection_of(sample, token_map, picked))
    lines = "".join(json.dumps(row.to_row()) + "\n" for row in rows)
    (folder / "predictions.jsonl").write_text(lines, encoding="utf-8")
    if keep < TOKENS:
        Selections(folder, len(rows)).append(selections)
    run = {
        "config": {"dataset": dataset, "metrics": metrics or EXACT},
        "choices": {"pruner": "tfps", "model": "tiny"},
        "counts": {"planned": len(rows), "done": len(rows), "failed": 0},
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.json").write_text("{}")
    return rows


def minidrive(size: int) -> tuple[MiniDrive, dict[str, Any]]:
    """Returns the first questions of MiniDrive, and the configuration that names them."""
    return MiniDrive(size=size), {"_target_": "prune2drive.minidrive.dataset.MiniDrive", "size": size}


HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"'`&amp;<!--",
    "a\x00b\x07c\x1bd\u2028e\ud800f",
    "\u202eright to left\u2066",
    "long " * 2000,
    "x" * 10_000,
)


def hostile_samples() -> list[Sample]:
    """Questions whose every text tries to break a page."""
    return [
        Sample(
            id=f"{text}-{number}",
            images=dict.fromkeys((f"CAM_{text[:40]}", "<b>CAM</b>")),
            question=text,
            prompt=text,
            reference=text,
            kind=text[:60],
            scene=f"scene {number}",
            frame=text,
            objects=(ObjectBox("<b>CAM</b>", (0, 0, 50, 50), text),),
            image_sizes={"<b>CAM</b>": (100, 100)},
        )
        for number, text in enumerate(HOSTILE)
    ]
