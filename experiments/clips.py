"""Tables of MiniDrive's clips, for a model of `task=train_clips`; made and written as those of single frames are.

    python -m experiments.clips --shared --questions 480 --model minidrive2,checkpoint=DIR --write docs/minidrive.md

A clip shows every camera at two times. All methods of a column but `none` and `resize` end with as many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments.cells import Cell, Table, beside
from experiments.kinds import by_kind
from experiments.minidrive import Tables, print_tables, run, tokens_of_image
from experiments.minidrive2 import METHODS, OURS, REFERENCE
from experiments.runs import Options
from prune2drive.cameras import CAMERAS, clip_views, time_of
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.pruning.selection import budget

BENCHMARK = "minidrive2"
TIMES = 2
KEEP = (0.25, 0.1)
ROWS: dict[str, Options] = {
    "`none`": ("none",),
    **{f"`{method}`": (method,) for method in METHODS if method != "learned"},
    f"`{REFERENCE}`, one budget for both times": (REFERENCE, "pruner.scope=over_time"),
    f"`{REFERENCE}`, one budget for all": (REFERENCE, "pruner.scope=global"),
}
"""Row -> method and its options."""
SHARES = {"current images twice as much as first": 4 / 3, "first images twice as much as current": 2 / 3}
"""Row -> the budget of current images, in units of a uniform one."""


def clip_run(questions: int, method: str, keep: float = 0.1, *more: str) -> Options:
    """Returns the options of one run of a method on clips."""
    return (f"dataset.times={TIMES}", *run(questions, method, keep, *more))


def divided(questions: int, keep: float, share: float) -> Options:
    """Returns the options of a run of T-FPS at a keep ratio, of which current images have another share."""
    tokens = tokens_of_image(2)
    each = budget(keep, tokens)
    current = round(share * each)
    kept = (2 * each - current, current)
    ratios = ",".join(f"{view}:{kept[time_of(view) or 0] / tokens}" for view in clip_views(CAMERAS, TIMES))
    *common, _ = clip_run(questions, REFERENCE, keep)
    return (*common, "ratios=per_camera", f"+ratios.keep={{{ratios}}}")


def methods(questions: int) -> Table:
    usual = [clip_run(questions, REFERENCE, keep) for keep in KEEP]
    made = {
        name: [clip_run(questions, method, keep, *options) for keep in KEEP]
        for name, (method, *options) in ROWS.items()
    }
    made |= {
        f"`{REFERENCE}`, {name}": [divided(questions, keep, share) for keep in KEEP] for name, share in SHARES.items()
    }
    cells = beside({name: [*zip(runs, usual, strict=True)] for name, runs in made.items()})
    header: list[Cell] = ["method", *(name for keep in KEEP for name in (f"{keep:.0%}", f"minus `{REFERENCE}`"))]
    return [header, *([name, *row] for name, row in cells.items())]


def kinds(questions: int) -> Table:
    runs = {
        "grey images": clip_run(questions, "none", 1, "images=grey"),
        "no pruning": clip_run(questions, "none"),
        **{f"`{REFERENCE}`, {keep:.0%}": clip_run(questions, REFERENCE, keep) for keep in KEEP},
        **{f"`{OURS}`, {keep:.0%}": clip_run(questions, OURS, keep) for keep in KEEP},
    }
    return by_kind(MiniDrive("test", size=questions, times=TIMES), runs)


TABLES: Tables = {
    "clips": (methods, "Methods on clips of two times; all intervals of differences hold together"),
    "clip_kinds": (
        kinds,
        "Each kind of question about clips; words alone: the commonest answer in training to the same question",
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    print_tables(BENCHMARK, TABLES, list(TABLES), arguments)


if __name__ == "__main__":
    main()
