"""The kinds of questions of a table: what is right without looking, beside the scores of runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import fmean

from experiments.cells import Score, Table
from experiments.runs import Options
from prune2drive.minidrive.dataset import MiniDrive

LEARNED = 2000  # frames of the train split from which answers without images are known


def by_kind(dataset: MiniDrive, runs: Mapping[str, Options]) -> Table:
    """Returns a row for each kind of question: what is right without looking, and the score of each run.

    Args:
        dataset: the questions.
        runs: name of a column -> options of its run.
    """
    table: Table = [["kind", "n", "commonest answer", "words alone", *runs]]
    without = words_alone(dataset)
    for kind, of_kind in of_kinds(dataset).items():
        scores = [Score((options,), only=frozenset(of_kind)) for options in runs.values()]
        table.append([kind, str(len(of_kind)), commonest(of_kind), without[kind], *scores])
    return table


def of_kinds(dataset: MiniDrive) -> dict[str, dict[str, str]]:
    """Returns kind of question -> id of each question -> its reference."""
    references: dict[str, dict[str, str]] = defaultdict(dict)
    for at, question in enumerate(dataset.ids):
        references[dataset.kind(at)][question] = dataset.row(at).reference or ""
    return references


def commonest(references: Mapping[str, str]) -> str:
    """Returns the share of the commonest answer in percent."""
    return f"{100 * max(Counter(references.values()).values()) / len(references):.1f}"


def words_alone(dataset: MiniDrive) -> dict[str, str]:
    """Returns for each kind of question the share that is right without images, in percent.

    A question has the commonest answer to its words in the first frames of the train split or, where they are not
    there, to its kind.
    """
    train = MiniDrive("train", version=dataset.version, times=dataset.times, size=LEARNED * dataset.per_frame)
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in map(train.row, range(len(train))):
        for words in (row.question, ""):
            answers[str(row.kind), words][str(row.reference)] += 1
    right = defaultdict(list)
    for row in map(dataset.row, range(len(dataset))):
        kind = str(row.kind)
        known = answers.get((kind, row.question)) or answers[kind, ""]
        right[kind].append(known.most_common(1)[0][0] == row.reference)
    return {kind: f"{100 * fmean(each):.1f}" for kind, each in right.items()}
