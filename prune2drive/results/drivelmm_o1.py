"""Writes a run's answers as DriveLMM-o1's evaluation script reads them.

    python -m prune2drive.results.drivelmm_o1 RUN_FOLDER

writes RUN_FOLDER/results_drivelmm_o1.json, to be set as `input_file` in that script.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.files import write_list
from prune2drive.results.run_folder import RunFolder
from prune2drive.sample import Prediction

RESULTS = "results_drivelmm_o1.json"


def result(row: Prediction) -> dict[str, str | None]:
    """Returns an answer with the field names of the benchmark's scoring and inference scripts."""
    scored = {"idx": row.id, "question": row.question, "llm-response": row.answer}
    return scored | {"id": row.id, "answer": row.answer, "gt_answers": row.reference}


def write_results(folder: Path, file: Path | None = None) -> tuple[Path, int, int]:
    """Writes a run's answers, without failed questions, which the script cannot score.

    Args:
        file: the file to write; by default `results_drivelmm_o1.json` in the run folder.

    Returns:
        The file, the number of answers in it, and the number of failed questions.

    Raises:
        InputError: the folder holds no run, or the file cannot be written.
    """
    if not (folder / "predictions.jsonl").is_file():
        raise InputError(f"{folder}: no predictions.jsonl there; give a run folder")
    file = file or folder / RESULTS
    counts = Counter(row.answer is not None for row in RunFolder(folder).rows())
    write_list(file, (result(row) for row in RunFolder(folder).rows() if row.answer is not None))
    return file, counts[True], counts[False]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line above."""
    parser = argparse.ArgumentParser(description="Write a run's answers as DriveLMM-o1's evaluation script reads them.")
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--to", type=Path, metavar="FILE", help=f"default: RUN_FOLDER/{RESULTS}")
    options = parser.parse_args(arguments)
    try:
        file, answered, failed = write_results(options.folder, options.to)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{file}: {answered} answers" + (f"; {failed} failed questions are left out" if failed else ""))


if __name__ == "__main__":
    main()
