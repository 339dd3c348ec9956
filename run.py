"""The one command: `python run.py pruner=tfps ratios=uniform` (`--help` explains the options)."""

import sys
from pathlib import Path

import hydra
from hydra.utils import get_method
from omegaconf import DictConfig

import prune2drive.config  # noqa: F401  # registers the resolvers that configs/ uses
from prune2drive.errors import InputError

TASKS = sorted(file.stem for file in (Path(__file__).parent / "configs" / "task").glob("*.yaml"))


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(cfg: DictConfig) -> float:
    """Runs the configured task."""
    try:
        if cfg.task.name not in TASKS:
            raise InputError(f"task.name={cfg.task.name}: no such task; choose task={', task='.join(TASKS)}")
        return get_method(f"prune2drive.{cfg.task.name}.run")(cfg)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    # Hydra's parser refuses -m between overrides; here it may stand anywhere.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    main()
