"""Visual-token pruning: methods, ratios and the hooks that apply them inside a stock model."""

from prune2drive.pruning.base import Pruner, ScorePruner, Traits
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.diversity_ratios import Diversity
from prune2drive.pruning.dynamic_ratios import Dynamic
from prune2drive.pruning.methods.cdpruner import CDPruner
from prune2drive.pruning.methods.dart import DART
from prune2drive.pruning.methods.divprune import DivPrune
from prune2drive.pruning.methods.facility import SCOPE, FacilityLocation, MMTok
from prune2drive.pruning.methods.fastv import FastV
from prune2drive.pruning.methods.holov import HoloV
from prune2drive.pruning.methods.learned import LearnedScorer
from prune2drive.pruning.methods.mmr import MMR
from prune2drive.pruning.methods.none import NoPruner
from prune2drive.pruning.methods.outlier import OutlierPruner
from prune2drive.pruning.methods.pact import PACT
from prune2drive.pruning.methods.pyramiddrop import PyramidDrop
from prune2drive.pruning.methods.random import RandomPruner
from prune2drive.pruning.methods.resize import Resize
from prune2drive.pruning.methods.ring_tfps import RingTFPS
from prune2drive.pruning.methods.salient_tfps import SalientTFPS
from prune2drive.pruning.methods.sparsevlm import SparseVLM
from prune2drive.pruning.methods.staged import Staged
from prune2drive.pruning.methods.tfps import TFPS
from prune2drive.pruning.methods.uniform import UniformPruner
from prune2drive.pruning.methods.visionzip import VisionZip
from prune2drive.pruning.methods.vispruner import VisPruner
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.ratios import Adaptive, Allocator, PerCamera, RatioPolicy, Uniform
from prune2drive.pruning.surgery.prune import prune
from prune2drive.pruning.surgery.trace import Trace

__all__ = [
    "Adaptive",
    "Allocator",
    "CDPruner",
    "Context",
    "DART",
    "DivPrune",
    "Diversity",
    "Dynamic",
    "FacilityLocation",
    "FastV",
    "HoloV",
    "LearnedScorer",
    "MMR",
    "MMTok",
    "NoPruner",
    "OutlierPruner",
    "PACT",
    "PerCamera",
    "Pool",
    "Pruner",
    "PyramidDrop",
    "RandomPruner",
    "RatioPolicy",
    "RingTFPS",
    "SCOPE",
    "ScorePruner",
    "Resize",
    "SalientTFPS",
    "Selection",
    "SparseVLM",
    "Staged",
    "TFPS",
    "Trace",
    "Traits",
    "Uniform",
    "UniformPruner",
    "VisPruner",
    "VisionZip",
    "prune",
]
