"""The DriveLM challenge's score, its rules and its files; `python -m prune2drive.metrics.drivelm` scores files."""

from prune2drive.metrics.drivelm.score import DriveLMScore

__all__ = ["DriveLMScore"]
