"""Uploads what W&B keeps in files, by a process of its own, which a run waits for no longer than it wants to."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

OF_THE_RUN = ("WANDB_SERVICE", "WANDB_SILENT")
"""What would let `wandb sync` use the run's own service, or say nothing."""


def upload(folder: Path, patience: float) -> None:
    """Uploads W&B runs, and says in one line where they are, or why they are not there and how to send them later.

    Args:
        folder: W&B's folder, which holds a folder for each run; runs that have been uploaded are left out.
        patience: seconds to wait at most.
    """
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name not in OF_THE_RUN}
    environment["WANDB_DIR"] = str(folder.parent)  # for its own logs
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that W&B's own processes end with it
    )
    try:
        said, _ = process.communicate(timeout=patience)
        reason = "" if "Finished syncing" in said else _last_words(said)
    except subprocess.TimeoutExpired:
        said, reason = "", f"not done within {patience:g} s (logger.patience)"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if reason:
        log.warning("W&B: %s; the run is in files, to upload with: wandb sync %s", reason, shlex.quote(str(folder)))
    elif found := re.findall(r"View run .* at (\S+)", said):
        log.info("W&B: %s", found[-1])


def _last_words(said: str) -> str:
    """Returns why `wandb sync` gave up: its last error, or else its last line."""
    lines = [line.removeprefix("wandb:").strip() for line in said.splitlines() if line.strip()]
    errors = [line.partition("ERROR")[2].strip() for line in lines if "ERROR" in line]
    return (errors or lines or ["wandb sync said nothing"])[-1]
