"""The tables of README.md and of the model card, from runs on MiniDrive.

    python -m experiments.minidrive                      # makes the runs that are missing, prints all tables
    python -m experiments.minidrive --write README.md    # and puts them between the file's markers
    python -m experiments.minidrive --tables budgets --shared          # what search=tpe found, beside others
    python -m experiments.minidrive --tables retrained --model minidrive,checkpoint=DIR    # what task=train made

Scores are exact match in percent with 95 % intervals from 10,000 bootstrap resamples of frames; differences are paired,
question by question. In the comparison, random selection is the mean of three seeds; elsewhere it is one draw.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import AutoConfig

from experiments.runs import REPOSITORY, Options, Runs, commit
from prune2drive.metrics.statistics import difference, interval
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import PACKAGED
from prune2drive.pruning.selection import budget
from prune2drive.pruning.surgery.budgets import layer_average
from prune2drive.search.baselines import baselines

BASELINES = OmegaConf.load(REPOSITORY / "configs" / "experiment" / "baselines.yaml")
EVERY = tuple(BASELINES.hydra.sweeper.params.pruner.split(","))
METHODS = ("tfps", "random", "uniform", "fastv")
KEEP = (0.5, 0.25, 0.1)
SEEDS = {"random": (0, 1, 2)}
REFERENCE = "tfps"
SEARCHED = {
    0.05: "experiments/searched/minidrive_5.yaml",
    0.1: "configs/ratios/adaptive/minidrive_minidrive.yaml",
    0.25: "experiments/searched/minidrive_25.yaml",
}
FRONT_WEIGHTED = "experiments/front_weighted.yaml"


@dataclass(frozen=True)
class Cell:
    """A score, or what it is more than another; each the mean over runs that differ in their seed.

    Args:
        only: ids of the questions that count; empty: all.
    """

    ours: tuple[Options, ...]
    theirs: tuple[Options, ...] = ()
    only: frozenset[str] = frozenset()

    def text(self, runs: Runs) -> str:
        ours, theirs = (self._counted(runs.right(each)) for each in (self.ours, self.theirs))
        frames = {question: question.rpartition("_")[0] for question in ours}
        found, sign = (difference(ours, theirs, frames), "+") if self.theirs else (interval(ours, frames), "")
        return f"{100 * found.value:{sign}.1f} [{100 * found.low:{sign}.1f}, {100 * found.high:{sign}.1f}]"

    def _counted(self, right: dict[str, float]) -> dict[str, float]:
        return {question: share for question, share in right.items() if not self.only or question in self.only}


@dataclass(frozen=True)
class Cost:
    """A number of a run's metrics, or one divided by another: times of several runs are not to be compared."""

    run: Options
    key: str
    form: str
    by: str = ""

    def text(self, runs: Runs) -> str:
        found = runs.metrics(self.run)
        if self.key not in found:
            return ""
        return format(found[self.key] / (found[self.by] if self.by else 1), self.form)

    @property
    def ours(self) -> tuple[Options, ...]:
        return (self.run,)


Table = list[list[str | Cell | Cost]]


def answers(questions: int, method: str, keep: float = 0.1) -> tuple[Options, ...]:
    """The runs of a method at a budget, one for each of its seeds."""
    once = answer(questions, method, keep)
    return tuple((*once, *([f"seed={seed}"] if seed else [])) for seed in SEEDS.get(method, (0,)))


def answer(questions: int, method: str, keep: float = 0.1, *more: str) -> Options:
    """One run of a method at a budget."""
    return (
        f"dataset.size={questions}",
        f"pruner={method}",
        *([] if method == "none" else [f"ratios.keep={keep}"]),
        *more,
    )


def comparison(questions: int) -> Table:
    """Methods at the same budgets."""
    percents = [f"{keep:.0%}" for keep in KEEP]
    table: Table = [["method", *percents, *(f"T-FPS minus it, {percent}" for percent in percents)]]
    for method in ("none", *METHODS):
        found = [answers(questions, method, keep) for keep in KEEP]
        best = [answers(questions, REFERENCE, keep) for keep in KEEP]
        gaps = ["" if method == REFERENCE else Cell(b, f) for b, f in zip(best, found, strict=True)]
        table.append([f"`{method}`", *map(Cell, found), *gaps])
    return table


def retrained(questions: int) -> Table:
    """Methods at 10 %, random selection as the mean of three seeds."""
    return [["method", "exact match"]] + [
        [f"`{method}`", Cell(answers(questions, method))] for method in ("none", *METHODS)
    ]


def kinds(questions: int) -> Table:
    """Each kind of question without pruning and at 10 %, beside the share of its commonest answer."""
    dataset = MiniDrive("test", size=questions)
    asked: dict[str, dict[str, str]] = defaultdict(dict)
    for at, question in enumerate(dataset.ids):
        asked[dataset.kind(at)][question] = str(dataset[at].reference)
    table: Table = [["kind", "n", "commonest answer", "no pruning", "T-FPS, 10%", "random, 10%"]]
    for kind, replies in asked.items():
        commonest = max(Counter(replies.values()).values()) / len(replies)
        columns = [Cell(answers(questions, method), only=frozenset(replies)) for method in ("none", "tfps", "random")]
        table.append([kind, str(len(replies)), f"{100 * commonest:.1f}", *columns])
    return table


def methods(questions: int) -> Table:
    """Every method at 25 and 10 % after its last cut; FLOPs of all tokens' and selection's share of the prefill."""
    budgets = ("0.25", "0.1")
    header = ["exact match", "layer average", "FLOPs", "selection"]
    table: Table = [["method", *(f"{name}, {float(keep):.0%}" for keep in budgets for name in header)]]
    for method in EVERY:
        row: list[str | Cell | Cost] = [f"`{method}`"]
        for keep in budgets:
            run = answer(questions, method, float(keep))
            row += [
                Cell((run,)),
                Cost(run, "tokens/layer_average", ".0f"),
                Cost(run, "flops/ratio", ".0%"),
                Cost(run, "time/select_ms", ".0%", "time/prefill_ms"),
            ]
        table.append(row)
    return table


def layer_averages(questions: int) -> Table:
    """Methods at the same mean over all decoder layers, 50 %, beside what that leaves after the last cut."""
    table: Table = [["method", "exact match", "tokens after the last cut", "FLOPs"]]
    depth = AutoConfig.from_pretrained(PACKAGED).get_text_config().num_hidden_layers
    for method in EVERY:
        node = OmegaConf.load(REPOSITORY / "configs" / "pruner" / f"{method}.yaml")
        pruner = instantiate(OmegaConf.create({"seed": 0, "pruner": node}).pruner).resolve(depth)
        if not pruner.cuts or layer_average(pruner, 1, 100, depth) > 50:
            continue
        run = answer(questions, method, 0.5, "budget_axis=layer_average")
        table.append(
            [f"`{method}`", Cell((run,)), Cost(run, "tokens/visual_kept", ".0f"), Cost(run, "flops/ratio", ".0%")]
        )
    return table


def allocation(_: int) -> Table:
    """T-FPS with a front-weighted budget against the same total spread evenly, 10 % in all, on whole splits."""
    table: Table = [["split", "uniform", "front-weighted", "front-weighted minus uniform"]]
    for split in ("search", "test"):
        whole = (f"dataset.split={split}", "dataset.size=null", f"pruner={REFERENCE}")
        even, front = ((*whole, "ratios.keep=0.1"),), ((*whole, "ratios=adaptive", f"ratios.file={FRONT_WEIGHTED}"),)
        table.append([split, Cell(even), Cell(front), Cell(front, even)])
    return table


def budgets(questions: int) -> Table:
    """T-FPS with the same number of tokens, shared between the cameras in several ways; test split."""
    table: Table = [["budget", "5%", "minus searched", "10%", "minus searched", "25%", "minus searched"]]
    vision = AutoConfig.from_pretrained(PACKAGED).vision_config
    per_camera = (vision.image_size // vision.patch_size) ** 2
    tokens = dict.fromkeys(MiniDrive().cameras, per_camera)
    ways: dict[str, list[list[str]]] = defaultdict(list)
    for keep, file in SEARCHED.items():
        total = len(tokens) * budget(keep, per_camera)
        (front,) = baselines(tokens, total, 0.0, 0, 0)["front_heavy"]
        dynamic = ["ratios=dynamic", f"ratios.keep={keep}"]
        weighted = ["ratios.weights=adaptive", f"ratios.file={file}"]
        ways["uniform"].append([f"ratios.keep={keep}"])
        ways["front-heavy"].append(["ratios=per_camera", f"ratios.keep={str(front).replace(' ', '')}".replace("'", "")])
        ways["searched"].append(["ratios=adaptive", f"ratios.file={file}"])
        for pool in ("joint", "radius"):
            ways[f"dynamic, {pool}"].append([*dynamic, f"ratios.pool={pool}"])
            ways[f"dynamic, {pool}, searched weights"].append([*dynamic, f"ratios.pool={pool}", *weighted])
    common = (f"dataset.size={questions}", f"pruner={REFERENCE}")
    for way, options in ways.items():
        row: list[str | Cell | Cost] = [way]
        for each, found in zip(options, ways["searched"], strict=True):
            mine, searched = (*common, *each), (*common, *found)
            row += [Cell((mine,)), "" if way == "searched" else Cell((mine,), (searched,))]
        table.append(row)
    return table


def layers(questions: int) -> Table:
    """Methods at 10 %, cut at layer k; FastV's attention begins with layer 1."""
    depths = (0, 1, 2, 3)
    table: Table = [["method", *(f"k = {layer}" for layer in depths)]]
    for method in METHODS:
        usual = OmegaConf.load(REPOSITORY / "configs" / "pruner" / f"{method}.yaml").layer
        possible = [layer for layer in depths if layer or method != "fastv"]
        moved = [[] if layer == usual else [f"pruner.layer={layer}"] for layer in possible]
        cells = [Cell((answer(questions, method, 0.1, *options),)) for options in moved]
        table.append([f"`{method}`", *[""] * (len(depths) - len(cells)), *cells])
    return table


def difficulties(questions: int) -> Table:
    """Methods at 10 % on scenes of each difficulty."""
    levels = {"easy": ["dataset.difficulty=easy"], "standard": [], "dense": ["dataset.difficulty=dense"]}
    table: Table = [["method", *levels]]
    for method in ("none", *METHODS):
        cells = [Cell((answer(questions, method, 0.1, *options),)) for options in levels.values()]
        table.append([f"`{method}`", *cells])
    return table


TABLES: dict[str, Callable[[int], Table]] = {
    each.__name__: each
    for each in (comparison, methods, layer_averages, budgets, kinds, allocation, layers, difficulties, retrained)
}


def needed(table: Table) -> Iterator[Options]:
    """The runs a table is made of."""
    for row in table:
        for cell in row:
            if not isinstance(cell, str):
                yield from (*cell.ours, *getattr(cell, "theirs", ()))


def markdown(table: Table, runs: Runs) -> str:
    lines = [[cell if isinstance(cell, str) else cell.text(runs) for cell in row] for row in table]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put(text: str, name: str, block: str) -> str:
    """A text with what stands between `<!-- name -->` and `<!-- /name -->` replaced, if it has these markers."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}{block}\n{found[2]}", text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="MiniDrive's tables.")
    usual = [name for name in TABLES if name not in ("retrained", "budgets")]
    parser.add_argument("--tables", nargs="+", default=usual, choices=list(TABLES), metavar="TABLE")
    parser.add_argument("--questions", type=int, default=1000, help="of each run, of the test split (default: 1000)")
    parser.add_argument(
        "--model", default="minidrive", help="a configs/model/ file, with options: 'minidrive,checkpoint=DIR'"
    )
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "outputs" / "experiments", help="of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--shared", action="store_true", help="make the runs in this process: faster, but not timed")
    parser.add_argument("--write", type=Path, nargs="*", default=[], help="files whose marked blocks are replaced")
    options = parser.parse_args(arguments)
    model, *settings = options.model.split(",")
    runs = Runs(options.folder, [f"model={model}", *(f"model.{setting}" for setting in settings)], options.shared)
    tables = {name: TABLES[name](options.questions) for name in options.tables}
    runs.make((run for table in tables.values() for run in needed(table)), options.jobs)
    for name, table in tables.items():
        said = TABLES[name].__doc__.strip().rstrip(".")
        size = f"n = {options.questions} where it is not the whole split"
        block = f"{markdown(table, runs)}\n\n{said}; commit {commit()}, {size}."
        print(f"{name}\n{block}\n")
        for file in options.write:
            file.write_text(put(file.read_text(encoding="utf-8"), f"minidrive:{name}", block), encoding="utf-8")


if __name__ == "__main__":
    main()
