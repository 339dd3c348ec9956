"""Visual-token pruning: methods, ratios and the hooks that apply them inside a stock model."""

from prune2drive.pruning.allocation import Dynamic
from prune2drive.pruning.base import Context, Pool, Pruner, ScorePruner, Selection
from prune2drive.pruning.cdpruner import CDPruner
from prune2drive.pruning.dart import DART
from prune2drive.pruning.divprune import DivPrune
from prune2drive.pruning.facility import FacilityLocation
from prune2drive.pruning.fastv import FastV
from prune2drive.pruning.hooks import prune
from prune2drive.pruning.none import NoPruner
from prune2drive.pruning.outlier import OutlierPruner
from prune2drive.pruning.pact import PACT
from prune2drive.pruning.plan import Trace
from prune2drive.pruning.pyramiddrop import PyramidDrop
from prune2drive.pruning.random import RandomPruner
from prune2drive.pruning.ratios import Adaptive, Allocator, PerCamera, RatioPolicy, Uniform
from prune2drive.pruning.sparsevlm import SparseVLM
from prune2drive.pruning.stages import Staged
from prune2drive.pruning.tfps import TFPS
from prune2drive.pruning.uniform import UniformPruner
from prune2drive.pruning.vispruner import VisPruner

__all__ = [
    "Adaptive",
    "Allocator",
    "CDPruner",
    "Context",
    "DART",
    "DivPrune",
    "Dynamic",
    "FacilityLocation",
    "FastV",
    "NoPruner",
    "OutlierPruner",
    "PACT",
    "PerCamera",
    "Pool",
    "Pruner",
    "PyramidDrop",
    "RandomPruner",
    "RatioPolicy",
    "ScorePruner",
    "Selection",
    "SparseVLM",
    "Staged",
    "TFPS",
    "Trace",
    "Uniform",
    "UniformPruner",
    "VisPruner",
    "prune",
]
