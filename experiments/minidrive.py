"""MiniDrive's tables: makes the runs that are missing, prints the tables, writes them between markers of files.

    python -m experiments.minidrive
    python -m experiments.minidrive --write docs/minidrive.md          # between <!-- minidrive:NAME --> markers
    python -m experiments.minidrive --tables budgets --shared          # ratios that `search=tpe` found, beside others
    python -m experiments.minidrive --tables retrained --model minidrive,checkpoint=DIR    # a model of `task=train`

Scores are exact match in percent with 95 % intervals from 10,000 bootstrap resamples of frames; differences are paired,
question by question. In the tables `comparison`, `kinds` and `retrained`, random selection is the mean of three seeds;
elsewhere it is one draw.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from omegaconf import OmegaConf
from transformers import AutoConfig

from experiments.cells import Cell, Cost, Score, Table, beside, markdown, needed, write_block
from experiments.kinds import commonest, of_kinds
from experiments.runs import REPOSITORY, Options, Runs, commit, named
from prune2drive.errors import InputError
from prune2drive.files import CONFIGS
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import packaged
from prune2drive.pruning import Pruner
from prune2drive.pruning.selection import budget
from prune2drive.pruning.surgery.budgets import layer_average
from prune2drive.search.baselines import baselines
from prune2drive.tasks.components import build
from prune2drive.tasks.config import compose

EVERY = tuple(OmegaConf.load(CONFIGS / "experiment/baselines.yaml").hydra.sweeper.params.pruner.split(","))
METHODS = ("tfps", "random", "uniform", "fastv")
KEEP = (0.5, 0.25, 0.1)
SEEDS = {"random": (0, 1, 2)}
REFERENCE = "tfps"
SEARCHED = {
    0.05: "experiments/searched/minidrive_5.yaml",
    0.1: "prune2drive/searched_ratios/minidrive_minidrive.yaml",
    0.25: "experiments/searched/minidrive_25.yaml",
}
VERSION = 1
FRONT_WEIGHTED = "experiments/front_weighted.yaml"
Tables = Mapping[str, tuple[Callable[[int], Table], str]]
"""Name -> how to make a table of a number of questions, and what to say below it."""


def run(questions: int, method: str, keep: float = 0.1, *more: str) -> Options:
    """Returns the options of one run of a method at a keep ratio."""
    ratio = [] if method == "none" else [f"ratios.keep={keep}"]
    return (f"dataset.size={questions}", f"pruner={method}", *ratio, *more)


def seeded(questions: int, method: str, keep: float = 0.1) -> tuple[Options, ...]:
    """Returns the options of the runs of a method at a keep ratio, one for each of its seeds."""
    once = run(questions, method, keep)
    return tuple((*once, *([f"seed={seed}"] if seed else [])) for seed in SEEDS.get(method, (0,)))


@cache
def pruner(method: str, *options: str) -> Pruner:
    """Returns the method's pruner.

    Raises:
        InputError: the method cannot have these options.
    """
    return build(compose([f"pruner={method}", *options]).pruner)


def comparison(questions: int) -> Table:
    percents = [f"{keep:.0%}" for keep in KEEP]
    table: Table = [["method", *percents, *(f"T-FPS minus it, {percent}" for percent in percents)]]
    best = [seeded(questions, REFERENCE, keep) for keep in KEEP]
    for method in ("none", *METHODS):
        own = [seeded(questions, method, keep) for keep in KEEP]
        gaps = ["" if method == REFERENCE else Score(b, o) for b, o in zip(best, own, strict=True)]
        table.append([f"`{method}`", *map(Score, own), *gaps])
    return table


def retrained(questions: int) -> Table:
    rows = [[f"`{method}`", Score(seeded(questions, method))] for method in ("none", *METHODS)]
    return [["method", "exact match"], *rows]


def kinds(questions: int) -> Table:
    table: Table = [["kind", "n", "commonest answer", "no pruning", "T-FPS, 10%", "random, 10%"]]
    for kind, of_kind in of_kinds(MiniDrive("test", size=questions, version=VERSION)).items():
        scores = [Score(seeded(questions, method), only=frozenset(of_kind)) for method in ("none", "tfps", "random")]
        table.append([kind, str(len(of_kind)), commonest(of_kind), *scores])
    return table


def methods(questions: int) -> Table:
    ratios = ("0.25", "0.1")
    header = ["exact match", "layer average", "FLOPs", "selection"]
    table: Table = [["method", *(f"{name}, {float(keep):.0%}" for keep in ratios for name in header)]]
    for method in EVERY:
        row: list[Cell] = [f"`{method}`"]
        for keep in ratios:
            once = run(questions, method, float(keep))
            row += [
                Score((once,)),
                Cost(once, "tokens/layer_average", ".0f"),
                Cost(once, "flops/ratio", ".0%"),
                Cost(once, "time/select_ms", ".0%", "time/prefill_ms"),
            ]
        table.append(row)
    return table


def layer_averages(
    questions: int, methods: Sequence[str] = EVERY, average: float = 0.5, version: int = VERSION, paired: bool = False
) -> Table:
    """Returns the scores of methods at one mean over the layers.

    Args:
        questions: number of questions of a run.
        methods: names of the methods; those that cannot have this mean are left out.
        average: the mean, as a share of all tokens.
        version: version of MiniDrive.
        paired: whether each method's difference from T-FPS is shown, with intervals that hold together.
    """
    depth = AutoConfig.from_pretrained(packaged(version)).get_text_config().num_hidden_layers
    fit: dict[str, Options] = {}
    for method in methods:
        resolved = pruner(method).resolve(depth)
        if resolved.cuts and layer_average(resolved, 1, 100, depth) <= 100 * average:
            fit[method] = run(questions, method, average, "budget_axis=layer_average")
    scores = beside({method: [(once, fit[REFERENCE])] for method, once in fit.items()})
    minus = [f"minus `{REFERENCE}`"] if paired else []
    table: Table = [["method", "exact match", *minus, "tokens after the last cut", "FLOPs"]]
    for method, once in fit.items():
        costs = Cost(once, "tokens/visual_kept", ".0f"), Cost(once, "flops/ratio", ".0%")
        table.append([f"`{method}`", *scores[method][: 1 + paired], *costs])
    return table


def tokens_of_image(version: int = VERSION) -> int:
    """Returns how many visual tokens the packaged model of a version has for each image."""
    vision = AutoConfig.from_pretrained(packaged(version)).vision_config
    return int((vision.image_size // vision.patch_size) ** 2)


def front_heavy(keep: float, version: int = VERSION) -> str:
    """Returns keep ratios that lean to the front, set by hand, as an option's value; of the size of a uniform one."""
    tokens = dict.fromkeys(MiniDrive().cameras, tokens_of_image(version))
    total = len(tokens) * budget(keep, tokens_of_image(version))
    (front,) = baselines(tokens, total, 0.0, 0, 0)["front_heavy"]
    return str(front).replace(" ", "").replace("'", "")


def allocation(_: int) -> Table:
    table: Table = [["split", "uniform", "front-weighted", "front-weighted minus uniform"]]
    for split in ("search", "test"):
        whole = (f"dataset.split={split}", "dataset.size=null", f"pruner={REFERENCE}")
        even, front = ((*whole, "ratios.keep=0.1"),), ((*whole, "ratios=adaptive", f"ratios.file={FRONT_WEIGHTED}"),)
        table.append([split, Score(even), Score(front), Score(front, even)])
    return table


def budgets(questions: int) -> Table:
    table: Table = [["budget", "5%", "minus searched", "10%", "minus searched", "25%", "minus searched"]]
    policies: dict[str, list[list[str]]] = defaultdict(list)
    for keep, file in SEARCHED.items():
        dynamic = ["ratios=dynamic", f"ratios.keep={keep}"]
        weighted = ["ratios.weights=adaptive", f"ratios.file={file}"]
        policies["uniform"].append([f"ratios.keep={keep}"])
        policies["front-heavy"].append(["ratios=per_camera", f"ratios.keep={front_heavy(keep)}"])
        policies["searched"].append(["ratios=adaptive", f"ratios.file={file}"])
        for pool in ("joint", "radius"):
            policies[f"dynamic, {pool}"].append([*dynamic, f"ratios.pool={pool}"])
            policies[f"dynamic, {pool}, searched weights"].append([*dynamic, f"ratios.pool={pool}", *weighted])
    common = (f"dataset.size={questions}", f"pruner={REFERENCE}")
    searched = [(*common, *options) for options in policies["searched"]]
    for name, policy in policies.items():
        row: list[Cell] = [name]
        for options, best in zip(policy, searched, strict=True):
            own = (*common, *options)
            row += [Score((own,)), "" if name == "searched" else Score((own,), (best,))]
        table.append(row)
    return table


def layers(questions: int) -> Table:
    depths = range(4)
    table: Table = [["method", *(f"k = {layer}" for layer in depths)]]
    for method in METHODS:
        usual, row = compose([f"pruner={method}"]).pruner.layer, [f"`{method}`"]
        cells: list[Cell] = []
        for layer in depths:
            options = [] if layer == usual else [f"pruner.layer={layer}"]
            try:
                pruner(method, *options)
                cells.append(Score((run(questions, method, 0.1, *options),)))
            except InputError:
                cells.append("")
        table.append([*row, *cells])
    return table


def difficulties(questions: int) -> Table:
    levels = {"easy": ["dataset.difficulty=easy"], "standard": [], "dense": ["dataset.difficulty=dense"]}
    table: Table = [["method", *levels]]
    for method in ("none", *METHODS):
        scores = [Score((run(questions, method, 0.1, *options),)) for options in levels.values()]
        table.append([f"`{method}`", *scores])
    return table


TABLES: Tables = {
    "comparison": (comparison, "Methods at the same keep ratios"),
    "methods": (
        methods,
        "Every method at keep ratios of 25 and 10 % after its last cut: mean visual tokens over all layers, FLOPs as a "
        "share of the unpruned prefill's, selection as a share of the prefill's time",
    ),
    "layer_averages": (
        layer_averages,
        "Methods with the same mean over all decoder layers, 50 %, and their tokens after the last cut",
    ),
    "budgets": (budgets, "T-FPS with the same total budget, divided between the cameras in several ways; test split"),
    "kinds": (kinds, "Each kind of question without pruning and at 10 %, beside the share of its commonest answer"),
    "allocation": (
        allocation,
        "T-FPS at 10 % with a front-weighted and with a uniform budget of the same total, on whole splits",
    ),
    "layers": (layers, "Methods at 10 %, cut at layer k; empty where a method cannot cut there"),
    "difficulties": (difficulties, "Methods at 10 % on scenes of each difficulty"),
    "retrained": (retrained, "Methods at 10 %, random selection as the mean of three seeds"),
}
ON_REQUEST = ("retrained", "budgets")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    usual = [name for name in TABLES if name not in ON_REQUEST]
    print_tables("minidrive", TABLES, usual, arguments)


def add_run_options(parser: argparse.ArgumentParser, questions: int) -> None:
    """Adds the options of a command that makes runs and writes tables of them."""
    help_of_size = f"of each run, of the test split (default: {questions})"
    parser.add_argument("--questions", type=int, default=questions, help=help_of_size)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "outputs" / "experiments", help="of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument(
        "--shared", action="store_true", help="make the runs in one process a job: faster, but not timed"
    )
    parser.add_argument("--write", type=Path, nargs="*", default=[], metavar="FILE", help="files with marked blocks")


def print_tables(benchmark: str, tables: Tables, usual: Sequence[str], arguments: Sequence[str] | None) -> None:
    """Makes the runs that are missing, prints tables, and writes them between markers of files.

    Args:
        benchmark: name of a data set and of its model, with which markers begin.
        tables: all tables.
        usual: names of those that are made without `--tables`.
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description="MiniDrive's tables.")
    parser.add_argument("--tables", nargs="+", default=usual, choices=list(tables), metavar="TABLE")
    add_run_options(parser, questions=1000)
    parser.add_argument(
        "--model", default=benchmark, help="a configs/model/ file, with options: 'minidrive,checkpoint=DIR'"
    )
    options = parser.parse_args(arguments)
    runs = Runs(options.folder, named(options.model, benchmark), options.shared)
    try:
        made = {name: tables[name][0](options.questions) for name in options.tables}
    except InputError as error:
        parser.error(str(error))
    runs.make((each for table in made.values() for each in needed(table)), options.jobs)
    for name, table in made.items():
        size = f"n = {options.questions} where it is not the whole split"
        block = f"{markdown(table, runs)}\n\n{tables[name][1]}; commit {commit()}, {size}."
        print(f"{name}\n{block}\n")
        for file in options.write:
            write_block(file, f"{benchmark}:{name}", block)


if __name__ == "__main__":
    main()
