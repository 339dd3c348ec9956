"""Visual-token pruning for multi-camera driving vision-language models."""

from typing import Any

from prune2drive.errors import InputError
from prune2drive.pruning import prune
from prune2drive.sample import Sample
from prune2drive.token_map import TokenMap

__all__ = ["InputError", "Sample", "TokenMap", "__version__", "evaluate", "prune"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "evaluate":  # imported when used: it needs Hydra and Lightning, which pruning a model does not
        from prune2drive.tasks import framework

        return framework().evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
