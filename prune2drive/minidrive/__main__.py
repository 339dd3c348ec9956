"""Writes a split of MiniDrive in DriveLM's layout: `python -m prune2drive.minidrive --export DIR --split test`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import RESOLUTION, MiniDrive
from prune2drive.minidrive.questions import VERSION, VERSIONS
from prune2drive.minidrive.scene import DIFFICULTIES, SPLITS


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command; exits with 2 and one line where an option is wrong or the folder cannot be written."""
    parser = argparse.ArgumentParser("python -m prune2drive.minidrive", description=__doc__.split(":")[0])
    parser.add_argument("--export", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--split", default="test", choices=SPLITS, help="default: test")
    parser.add_argument("--difficulty", default="standard", choices=list(DIFFICULTIES), help="default: standard")
    parser.add_argument("--version", type=int, default=VERSION, choices=list(VERSIONS), help=f"default: {VERSION}")
    parser.add_argument("--resolution", type=int, default=RESOLUTION, help="width and height of an image in pixels")
    parser.add_argument("--size", type=int, default=None, help="number of questions (default: all of the split)")
    options = parser.parse_args(arguments)
    try:
        chosen = options.split, options.difficulty, options.resolution, options.size
        dataset = MiniDrive(*chosen, version=options.version)
        file = dataset.export(options.export)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{file}: {len(dataset)} questions")


if __name__ == "__main__":
    main()
