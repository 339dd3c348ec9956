"""Describes how a run was made: command, commit, versions, device."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from prune2drive.results.run_folder import FORMAT

PACKAGES = (
    "prune2drive",
    "torch",
    "transformers",
    "lightning",
    "hydra-core",
    "wandb",
    "pycocoevalcap",
    "numpy",
    "pillow",
)


def describe_run() -> dict[str, Any]:
    """Returns the fields of run.json on the command, code, packages and hardware of a run."""
    return {
        "format": FORMAT,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "git": dict(git_state()),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


@cache
def git_state() -> dict[str, Any]:
    """Returns the commit of this package's code and whether files differ from it; nulls if git does not track it.

    It is asked once: what is committed while a process runs is not what it runs.
    """
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", __file__) else None
    return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None}


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
