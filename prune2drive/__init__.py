"""Visual-token pruning for multi-camera driving vision-language models."""

from prune2drive.pruning import prune

__all__ = ["prune"]
