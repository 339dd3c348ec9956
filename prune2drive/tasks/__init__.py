"""What `python run.py` and the command `prune2drive` do; nothing is imported before it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from prune2drive.errors import InputError


def framework() -> Any:
    """Imports what runs and evaluations are made of, `prune2drive.tasks.main`.

    Raises:
        InputError: a package that it needs is not installed.
    """
    try:
        return import_module("prune2drive.tasks.main")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "prune2drive":
            raise
        missing = f"{error.name} is not installed"
        raise InputError(f"{missing}: runs and evaluations need pip install 'prune2drive[eval]'") from error


def command() -> None:
    """Runs the command line; exits with 2 and one line where the framework is not installed."""
    try:
        start = framework().main
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    start()
