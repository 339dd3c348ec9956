"""Rebuilds pages from run folders: `python -m prune2drive.report RUN [RUN ...]`.

One run folder: its report.html again. A multirun's folder, or several run folders over the same questions, from as many
machines as you like: comparison.html with paired differences, charts and tables, and the same as .md, .csv, .tex and,
in charts/, as PNG and SVG files. A folder that is missing or damaged is named, and the rest is shown.

    python -m prune2drive.report outputs/minidrive2/minidrive2/tfps/2026-01-01_12-00-00
    python -m prune2drive.report outputs/sweeps/2026-01-01_12-00-00 --baseline 'tfps keep=0.25'
    python -m prune2drive.report outputs/sweeps/* /mnt/other/outputs/sweeps/* --output comparison

No model, GPU or network is needed. Differences are paired by question over what all runs have been asked; the intervals
of a table hold for all its runs at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.report.comparison.findings import find
from prune2drive.report.comparison.runs import is_run
from prune2drive.report.comparison.tables import terminal
from prune2drive.report.comparison.verdict import verdict
from prune2drive.report.comparison.write import write_comparison
from prune2drive.report.run_page import write_report

SEARCH = "study.json", "prune2drive.search.page"
"""The file that a search leaves in its folder, and the module, of a room below, whose `main` writes its page."""
OUTPUT = Path("outputs", "comparison")


def rebuild(folders: Sequence[Path], output: Path | None = None, baseline: str | None = None) -> Path:
    """Writes the page of a run, or the comparison of several.

    Args:
        folders: run folders, and folders of them.
        output: folder of the comparison; by default the multirun's where one is given alone, else `OUTPUT`.
        baseline: the run that the others are compared with.

    Returns:
        The page's path.

    Raises:
        InputError: nothing can be read, no run goes by the baseline's name, or the runs share no question.
    """
    if len(folders) == 1 and is_run(folders[0]) and output is None and baseline is None:
        return _run_page(folders[0])
    console = Console()
    for folder in folders:
        if (folder / SEARCH[0]).is_file():
            import_module(SEARCH[1]).main([str(folder)])
    found = find(folders, baseline, is_strict=True)
    assert found is not None
    for fault in found.faults:
        console.print(str(fault), markup=False, highlight=False, soft_wrap=True)
    console.print(terminal(found))
    for sentence in verdict(found):
        console.print(sentence, markup=False, highlight=False)
    return write_comparison(found, output or (folders[0] if len(folders) == 1 else OUTPUT))


def _run_page(folder: Path) -> Path:
    run, metrics = (read_json(folder / name, f"{folder} is no finished run") for name in ("run.json", "metrics.json"))
    return write_report(folder, run, metrics)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line above; exits with 2 after one line on stderr where nothing can be shown."""
    described = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m prune2drive.report", description=__doc__, formatter_class=described)
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="a run folder, or a folder of them")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"of the comparison; default: the multirun's own where it is given alone, else {OUTPUT}",
    )
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="the run that the others are compared with, by its label, options or folder; default: the first run "
        "without pruning, else the first",
    )
    options = parser.parse_args(arguments)
    try:
        print(rebuild(options.folders, options.output, options.baseline))
    except InputError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
