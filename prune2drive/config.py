"""What configs/ needs of Python: a resolver for the run folder, and quiet third parties."""

from __future__ import annotations

import os
import warnings

from omegaconf import OmegaConf

os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", module="lightning.*")
OmegaConf.register_new_resolver("first", lambda *values: next(value for value in values if value), replace=True)
