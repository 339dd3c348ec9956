"""Converts a checkpoint to transformers' format: `python -m prune2drive.models.conversion SRC DST`."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.models.conversion import open_original
from prune2drive.models.conversion.native import save

EXAMPLE = """examples:
  python -m prune2drive.models.conversion ckpt/DriveMM ckpt/DriveMM-hf
  python run.py model=drivemm model.checkpoint=ckpt/DriveMM-hf

The converted folder is an ordinary checkpoint for transformers' AutoModelForImageTextToText. SRC is only read;
weights keep their number format, LoRA adapters are merged, and no code of the checkpoint is run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prune2drive.models.conversion",
        description="Convert a LLaVA-NeXT (DriveMM) or InternVL remote-code (DriveLMM-o1) checkpoint to transformers'.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="folder in the original format")
    parser.add_argument("target", type=Path, metavar="DST", help="folder to write; must not exist")
    parser.add_argument(
        "--vision-config",
        type=Path,
        metavar="FILE",
        help="JSON with the shape of a vision tower that is not known here",
    )
    args = parser.parse_args(argv)
    draft = args.target.with_name(f".{args.target.name}.draft")
    try:
        if args.target.exists():
            raise InputError(f"{args.target}: exists already; name a new folder")
        original = open_original(args.source, _read(args.vision_config))
        shutil.rmtree(draft, ignore_errors=True)
        save(original, draft)
        draft.rename(args.target)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"{args.target}: {original.family}, use it as model.checkpoint={args.target}")
    return 0


def _read(file: Path | None) -> dict[str, Any] | None:
    """Reads a file that holds a JSON object; None gives None.

    Raises:
        InputError: the file holds no JSON object.
    """
    if file is None:
        return None
    fields = read_json(file)
    if not isinstance(fields, dict):
        raise InputError(f"{file}: expected one JSON object, the fields of SiglipVisionConfig")
    return fields


if __name__ == "__main__":
    sys.exit(main())
