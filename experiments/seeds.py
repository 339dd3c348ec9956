"""The order of methods on models that were trained with different seeds: scores, Kendall's tau, and pairs that flip.

    python -m experiments.seeds minidrive2 minidrive2,checkpoint=outputs/seed1/checkpoint --shared --questions 480
    python -m experiments.seeds ... --write docs/minidrive2.md     # between <!-- minidrive2:seeds --> markers

Scores are exact match in percent on the test split with 95 % intervals from 10,000 bootstrap resamples of frames. Two
methods are apart on a model where the interval of their paired difference, which holds together with those of all
other pairs of the model, leaves out 0 (max-t bootstrap); they flip where they are apart on two models in opposite ways.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from scipy.stats import kendalltau

from experiments.cells import Score, simultaneous_margins, write_block
from experiments.minidrive import add_run_options, run
from experiments.minidrive2 import METHODS
from experiments.runs import Options, Runs, commit, named
from prune2drive.report.markdown import markdown_table

KEEP = (0.25, 0.1)
Order = dict[tuple[str, str], int]
"""Two methods -> 1 where the first is ahead, -1 where it is behind, 0 where they are not apart."""


def order(runs: Runs, methods: dict[str, Options]) -> Order:
    """Returns how the methods of a model are ordered, two by two.

    Args:
        runs: runs of the model.
        methods: method -> options of its run.
    """
    pairs = tuple(combinations(methods, 2))
    found = simultaneous_margins(runs, tuple((methods[one], methods[other]) for one, other in pairs))
    return {pair: (1 if margin.value > 0 else -1) * margin.is_clear for pair, margin in zip(pairs, found, strict=True)}


def agreement(scores: Sequence[dict[str, float]], orders: Sequence[Order]) -> list[str]:
    """Returns lines on how far the models agree.

    Args:
        scores: for each model, method -> exact match.
        orders: for each model, how its methods are ordered.
    """
    lines = []
    for one, other in combinations(range(len(scores)), 2):
        tau = kendalltau(*([of_model[method] for method in scores[one]] for of_model in (scores[one], scores[other])))
        apart = [pair for pair in orders[one] if orders[one][pair] and orders[other][pair]]
        flips = [pair for pair in apart if orders[one][pair] != orders[other][pair]]
        named_flips = "; ".join(f"`{first}` and `{second}`" for first, second in flips)
        lines.append(
            f"models {one + 1} and {other + 1}: Kendall's tau {tau.statistic:.2f}; {len(apart)} of {len(orders[one])} "
            f"pairs are apart on both, {len(flips)} of them flip{': ' * bool(flips)}{named_flips}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="The order of methods on models of different training seeds.")
    parser.add_argument("models", nargs="+", help="configs/model/ files, with options: 'minidrive2,checkpoint=DIR'")
    parser.add_argument("--dataset", default="minidrive2", help="a configs/dataset/ file (default: minidrive2)")
    add_run_options(parser, questions=480)
    options = parser.parse_args(arguments)
    seeds = [Runs(options.folder, named(model, options.dataset), options.shared) for model in options.models]
    wanted = {keep: {each: run(options.questions, each, keep) for each in METHODS} for keep in KEEP}
    full = run(options.questions, "none")
    for runs in seeds:
        runs.make((full, *(each for methods in wanted.values() for each in methods.values())), options.jobs)
    numbers = range(1, len(seeds) + 1)
    header = ["method", *(f"{keep:.0%}, model {number}" for keep in KEEP for number in numbers)]
    rows = [["`none`", *(Score((full,)).text(runs) for _ in KEEP for runs in seeds)]]
    rows += [
        [f"`{each}`", *(Score((wanted[keep][each],)).text(runs) for keep in KEEP for runs in seeds)] for each in METHODS
    ]
    lines = markdown_table(header, rows)
    for keep, methods in wanted.items():
        scores = [{each: 100 * fmean(runs.right((made,)).values()) for each, made in methods.items()} for runs in seeds]
        lines += [
            "",
            *(f"- {keep:.0%}, {line}." for line in agreement(scores, [order(runs, methods) for runs in seeds])),
        ]
    models = "; ".join(f"model {number}: `{model}`" for number, model in enumerate(options.models, 1))
    lines += [
        "",
        f"Methods on models of different training seeds; {models}; commit {commit()}, n = {options.questions}.",
    ]
    block = "\n".join(lines)
    print(block)
    for file in options.write:
        write_block(file, f"{options.dataset}:seeds", block)


if __name__ == "__main__":
    main()
