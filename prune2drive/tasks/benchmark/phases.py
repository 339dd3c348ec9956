"""Shows where the time of a question goes that is answered alone, vision included, pruned and in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig

from prune2drive.errors import check_whole
from prune2drive.results.run_folder import IN_FULL, RunFolder
from prune2drive.tasks.benchmark.rounds import Turns
from prune2drive.tasks.components import Components
from prune2drive.tasks.latency import measure_latency
from prune2drive.tasks.loop import Evaluation


def prepare(cfg: DictConfig, turns: Turns) -> Callable[[], Iterator[dict[str, Any]]]:
    """Returns what measures one row for every phase, as `latency` in the configuration has it.

    Raises:
        InputError: components that cannot be built or do not fit together, or no question.
    """
    check_whole("latency.questions", cfg.latency.questions)
    components = Components.build(cfg)

    def measure() -> Iterator[dict[str, Any]]:
        loop = Evaluation(components, cfg, RunFolder(cfg.folder), pictures=0).to(turns.device)
        how: dict[str, Any] = {"device": turns.device, "options": loop.options, "generation": loop.generation}
        found = measure_latency(components, **cfg.latency, **how)
        for phase in ("vision_ms", "select_ms", "prefill_ms", "decode_ms_per_token"):
            pruned, full = found.get(f"time/{phase}"), found.get(f"{IN_FULL}time/{phase}")
            yield {
                "phase": phase,
                "pruned": pruned,
                "full": full,
                "ratio": pruned / full if pruned and full else None,
                "questions": found.get(f"time/{phase}_n"),
            }

    return measure
