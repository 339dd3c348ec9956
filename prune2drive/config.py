"""What configs/ needs of Python: a resolver for the run folder, and quiet third parties."""

from __future__ import annotations

import logging
import os
import warnings

from omegaconf import OmegaConf

os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", module="lightning.*")
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
OmegaConf.register_new_resolver("first", lambda *values: next(value for value in values if value), replace=True)
