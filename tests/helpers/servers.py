"""Servers of others, started for a test by the scripts that anybody may use."""

import os
import subprocess

import pytest

from helpers.runs import REPOSITORY


def start(script: str, folder) -> str:
    """Returns what the script prints; skips the test, with the script's reason, where it cannot start its server."""
    command = [REPOSITORY / "benchmarks" / script, "start", folder]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode == 2:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def stop(script: str, folder) -> None:
    subprocess.run([REPOSITORY / "benchmarks" / script, "stop", folder], check=True)


def reachable(folder) -> None:
    """Lets the servers' own users into a folder of pytest's, which is its owner's alone."""
    for parent in (folder, *folder.parents):
        if parent.owner() == folder.owner() and parent.stat().st_uid == os.getuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o011)
