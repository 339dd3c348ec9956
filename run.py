"""The one command: `python run.py pruner=tfps ratios=uniform` (`--help` explains the options)."""

import sys

import hydra
from hydra.utils import get_method
from omegaconf import DictConfig

import prune2drive.tasks.config  # noqa: F401  # registers the resolvers that configs/ uses
from prune2drive.errors import InputError


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> float:
    """Runs the configured task."""
    try:
        return get_method(cfg.task._target_)(cfg)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    # Hydra's parser refuses -m between overrides; here it may stand anywhere.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    main()
