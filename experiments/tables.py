"""The paper's claims, ours beside the published numbers: what can be compared, and why the rest cannot.

    python -m experiments.tables                       # of the runs that are there, and the commands for the others
    python -m experiments.tables distance nearest      # some of the claims
    python -m experiments.tables --run                 # first makes the runs on MiniDrive that are missing
    python -m experiments.tables --runs outputs DIR    # looks for runs in DIR too, such as those of another machine
    python -m experiments.tables --write docs/claims.md    # between <!-- claims:NAME --> markers

A run counts whichever command made it: it is known by its configuration. Scores on MiniDrive are exact match in percent
with 95 % intervals from 10,000 bootstrap resamples of frames; differences are paired, question by question.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.cells import write_block
from experiments.claim_page import of_claim, summary
from experiments.claims import Claim, configuration, names
from experiments.comparison import Row, newest, rows_here, runs_there
from experiments.found_runs import FoundRuns
from experiments.runs import REPOSITORY, Options, Runs
from prune2drive.errors import InputError

OUTPUTS = REPOSITORY / "outputs"


def make_missing(claims: Iterable[Claim], folders: Sequence[Path]) -> None:
    """Makes the runs on the embedded benchmark that no folder holds, in the first one; interrupted ones are resumed."""
    runs = Runs(folders[0] / "experiments", shared=True)
    for claim in claims:
        found = FoundRuns(folders)  # claims share runs
        for job in () if isinstance(claim.counterpart, str) else claim.jobs:
            options = claim.here(job)
            if newest(found, configuration(options)):
                continue
            if claim.is_search:
                search(options, runs.path(options))
            else:
                runs.make([options])


def search(options: Options, folder: Path) -> None:
    """Makes or resumes a search in a folder.

    Raises:
        CalledProcessError: the search failed; it has said why.
    """
    place = "search.resume" if (folder / "study.json").exists() else "hydra.sweep.dir"
    command = [sys.executable, "run.py", "-m", *options, "logger=none", f"{place}='{folder}'"]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="The paper's claims, ours beside the published numbers.")
    parser.add_argument("claims", nargs="*", default=names(), metavar="CLAIM", help=", ".join(names()))
    parser.add_argument("--run", action="store_true", help="first make the runs on MiniDrive that are missing")
    parser.add_argument(
        "--runs", type=Path, nargs="+", default=[OUTPUTS], metavar="FOLDER", help="of runs; the first gets new ones"
    )
    parser.add_argument("--write", type=Path, nargs="*", default=[], metavar="FILE", help="files with marked blocks")
    options = parser.parse_args(arguments)
    try:
        claims = [Claim.read(name) for name in options.claims]
    except InputError as error:
        parser.error(str(error))
    if options.run:
        make_missing(claims, options.runs)
    found = FoundRuns(options.runs)
    rows: dict[str, list[Row]] = {claim.name: rows_here(claim, found) for claim in claims}
    there = [claim.name for claim in claims if not all(reason for *_, reason in runs_there(claim, found))]
    blocks = {"summary": summary(rows, there)} | {
        claim.name: of_claim(claim, rows[claim.name], found) for claim in claims
    }
    for name, lines in blocks.items():
        block = "\n".join(lines)
        print(f"## {name}\n\n{block}\n")
        is_whole = name in rows or {*rows} == {*names()}  # a summary of some claims is not the page's
        for file in options.write if is_whole else ():
            write_block(file, f"claims:{name}", f"\n{block}\n")


if __name__ == "__main__":
    main()
