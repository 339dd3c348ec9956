"""MiniDrive 2's tables: makes the runs that are missing, prints the tables, writes them between markers of files.

    python -m experiments.minidrive2 --shared
    python -m experiments.minidrive2 --shared --write docs/minidrive2.md      # between <!-- minidrive2:NAME --> markers
    python -m experiments.minidrive2 --shared --tables ours --questions 1440  # small differences need more questions

Scores are exact match in percent with 95 % intervals from 10,000 bootstrap resamples of frames; differences are paired,
question by question. Intervals that are said to hold together do so in 95 % of experiments (max-t bootstrap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import yaml

from experiments.cells import Cell, Score, Table, Together, beside
from experiments.kinds import by_kind
from experiments.minidrive import EVERY, Tables, front_heavy, layer_averages, print_tables, pruner, run
from experiments.runs import REPOSITORY, Options
from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive

OURS = "salient_tfps"
REFERENCE = "tfps"
METHODS = (*(method for method in EVERY if method != "none"), "learned")
MOVED = tuple(method for method in METHODS if method not in ("resize", "pyramiddrop", "sparsevlm", "staged"))
"""Methods whose positions are tried both ways: those that cut once, so that both keep the same tokens."""
SPLITS = {"standard": (), "photo": ("dataset.difficulty=photo",)}
CROWDED = "dataset.difficulty=crowded"
BUDGETS = (("standard", 0.25), ("standard", 0.1), ("standard", 0.05), ("photo", 0.1), ("photo", 0.05))
SEARCHED = {
    0.1: "prune2drive/searched_ratios/minidrive2_minidrive2.yaml",
    0.05: "experiments/searched/minidrive2_5.yaml",
}
RIVALS = {
    "`tfps`": ("tfps",),
    "`tfps`, searched ratios": ("tfps", "ratios=adaptive", "ratios.file={searched}"),
    "`tfps`, front-heavy ratios": ("tfps", "ratios=per_camera", "ratios.keep={front}"),
    "`tfps`, budgets by radius": ("tfps", "ratios=dynamic", "ratios.pool=radius"),
    "`tfps`, joint pool": ("tfps", "ratios=dynamic"),
    "`tfps`, `ratios=diversity`": ("tfps", "ratios=diversity"),
    "`outlier`": ("outlier",),
    "`outlier`, one pool": ("outlier", "pruner.scope=global"),
}
AVERAGE = 0.3
EQUAL_TIME = REPOSITORY / "experiments/equal_time.yaml"  # of python -m benchmarks.equal_time
ELSEWHERE = {"keep": "renumber", "renumber": "keep"}


def splits(questions: int) -> Table:
    table: Table = [["method", *(f"{split}, {keep:.0%}" for split, keep in BUDGETS)]]
    for method in ("none", *METHODS):
        cells = [Score((run(questions, method, keep, *SPLITS[split]),)) for split, keep in BUDGETS]
        table.append([f"`{method}`", *cells])
    blind = [Score((run(questions, "none", 1, "images=grey", *SPLITS[split]),)) for split, _ in BUDGETS]
    return [*table, ["grey images", *blind]]


def positions(questions: int) -> Table:
    budgets = (0.1,)
    shown = [f"{name}, {keep:.0%}" for keep in budgets for name in ("kept", "renumbered", "renumbered minus kept")]
    table: Table = [["method", *shown]]
    for method in MOVED:
        usual = pruner(method).traits.positions
        row: list[Cell] = [f"`{method}`"]
        for keep in budgets:
            theirs, kept = run(questions, method, keep), usual == "keep"
            other = (*theirs, f"positions={ELSEWHERE[usual]}")
            pair = (theirs, other) if kept else (other, theirs)
            row += [*(Score((each,)) for each in pair), Score((pair[1],), (pair[0],))]
        table.append(row)
    return table


def kinds(questions: int) -> Table:
    runs = {
        "grey images": run(questions, "none", 1, "images=grey"),
        "no pruning": run(questions, "none"),
        "`tfps`, 10%": run(questions, "tfps"),
        f"`{OURS}`, 10%": run(questions, OURS),
    }
    return by_kind(MiniDrive("test", size=questions, version=2), runs)


def differences(questions: int) -> Table:
    """Returns every method minus T-FPS at each budget."""
    budgets = [(keep, SPLITS[split]) for split, keep in BUDGETS]
    cells = {
        f"`{method}`": [
            (run(questions, method, keep, *more), run(questions, REFERENCE, keep, *more)) for keep, more in budgets
        ]
        for method in ("none", *METHODS)
        if method != REFERENCE
    }
    return together(["method", *(f"{split}, {keep:.0%}" for split, keep in BUDGETS)], cells)


def crowded(questions: int) -> Table:
    budgets = (0.1, 0.05)
    pairs = {
        method: [(run(questions, method, keep, CROWDED), run(questions, REFERENCE, keep, CROWDED)) for keep in budgets]
        for method in ("none", *METHODS)
    }
    header: list[Cell] = ["method", *(name for keep in budgets for name in (f"{keep:.0%}", f"minus `{REFERENCE}`"))]
    return [header, *([f"`{method}`", *cells] for method, cells in beside(pairs).items())]


def ours(questions: int) -> Table:
    budgets = [(split, options, keep) for split, options in SPLITS.items() for keep in SEARCHED]
    cells = {
        name: [
            (run(questions, OURS, keep, *more), rival(questions, method, keep, (*more, *options)))
            for _, more, keep in budgets
        ]
        for name, (method, *options) in RIVALS.items()
    }
    return together([f"`{OURS}` minus", *(f"{split}, {keep:.0%}" for split, _, keep in budgets)], cells)


def together(header: list[Cell], cells: Mapping[str, Sequence[tuple[Options, Options]]]) -> Table:
    """Returns a table of differences whose intervals all hold together.

    Args:
        header: its first row.
        cells: name of a row -> pairs of runs, the first minus the second.
    """
    family = tuple(pair for row in cells.values() for pair in row)
    return [header, *([name, *(Together(*pair, family) for pair in row)] for name, row in cells.items())]


def rival(questions: int, method: str, keep: float, options: Options) -> Options:
    """Returns the options of a run, of which ratios by camera say by themselves how much is kept."""
    found = {"searched": SEARCHED.get(keep), "front": front_heavy(keep, 2)}
    *common, ratio = run(questions, method, keep)
    by_camera = {"ratios=adaptive", "ratios=per_camera"} & {*options}
    return (*common, *([] if by_camera else [ratio]), *(option.format(**found) for option in options))


def times(questions: int) -> Table:
    if not EQUAL_TIME.is_file():
        file = EQUAL_TIME.relative_to(REPOSITORY)
        raise InputError(f"{file} is missing: `python -m benchmarks.equal_time --write {file}` makes it")
    record = yaml.safe_load(EQUAL_TIME.read_text(encoding="utf-8"))
    fits = {method: tokens for method, tokens in record["tokens"].items() if tokens}
    made = {
        method: [run(questions, method, tokens / record["of"], *more) for more in SPLITS.values()]
        for method, tokens in fits.items()
    }
    pairs = {method: [*zip(own, made[record["reference"]], strict=True)] for method, own in made.items()}
    less = f"minus `{record['reference']}`"
    header: list[Cell] = ["method", "tokens of a camera", *(name for split in SPLITS for name in (split, less))]
    return [header, *([f"`{method}`", str(fits[method]), *cells] for method, cells in beside(pairs).items())]


def layers(questions: int) -> Table:
    depths = (0, 1, 2, 4, 6)
    table: Table = [["method", *(f"k = {layer}" for layer in depths)]]
    for method in ("tfps", OURS, "random", "uniform", "outlier"):
        options = [[] if layer == pruner(method).cuts[0] else [f"pruner.layer={layer}"] for layer in depths]
        cells = [Score((run(questions, method, 0.1, *more),)) for more in options]
        table.append([f"`{method}`", *cells])
    return table


TABLES: Tables = {
    "splits": (splits, "Methods at equal final budgets, on scenes of the usual difficulty and on photo-like ones"),
    "differences": (differences, f"Methods minus `{REFERENCE}` at equal final budgets; all intervals hold together"),
    "crowded": (crowded, "Methods on crowded photo-like scenes; all intervals of differences hold together"),
    "layer_averages": (
        partial(layer_averages, methods=METHODS, average=AVERAGE, version=2, paired=True),
        "Methods with the same mean over all decoder layers, 30 %, and their tokens after the last cut; all intervals "
        "of differences hold together",
    ),
    "times": (
        times,
        "Methods with as many tokens as they may keep in equal time; all intervals of differences hold together",
    ),
    "positions": (positions, "The position ids of kept tokens kept or renumbered"),
    "kinds": (kinds, "Each kind of question; words alone: the commonest answer in training to the same question"),
    "ours": (ours, "Differences at the same total; all intervals hold together"),
    "layers": (layers, "Methods at 10 %, cut at layer k of 8"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    print_tables("minidrive2", TABLES, [name for name in TABLES if name != "ours"], arguments)


if __name__ == "__main__":
    main()
