"""Compares runs: as a table in the terminal, and as comparison.md, .csv, .tex and .html with charts for a paper."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

log = logging.getLogger(__name__)


class Comparison(Callback):
    """Prints a table of all runs when a multirun ends, and writes the comparison into its folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Compares the run folders, so that runs of other processes and machines are in it.

        Raises:
            InputError: the multirun's folder cannot be written.
        """
        from rich.console import Console

        from prune2drive.report.comparison.findings import find
        from prune2drive.report.comparison.runs import run_folders
        from prune2drive.report.comparison.tables import terminal
        from prune2drive.report.comparison.verdict import verdict
        from prune2drive.report.comparison.write import write_comparison

        folder = Path(config.hydra.sweep.dir)
        if run_folders(folder) == [folder] or not (found := find([folder])):
            return
        for fault in found.faults:
            log.warning("%s", fault)
        console = Console()
        console.print(terminal(found))
        for sentence in verdict(found):
            console.print(sentence, markup=False, highlight=False)
        console.print(f"comparison: {write_comparison(found, folder)}", soft_wrap=True)
