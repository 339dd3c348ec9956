"""What configs/ needs of Python: resolvers, and quiet third parties."""

from __future__ import annotations

import os
import warnings

from hydra.types import RunMode
from omegaconf import OmegaConf

os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", module="lightning.*")
OmegaConf.register_new_resolver("first", lambda *values: next(value for value in values if value), replace=True)
OmegaConf.register_new_resolver("single_run", lambda mode: mode != RunMode.MULTIRUN, replace=True)
