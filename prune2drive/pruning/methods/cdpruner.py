"""CDPruner (NeurIPS 2025, arXiv 2506.10967): keeps diverse tokens among those that the question is about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.clip_relevance import Clip, clip_relevance
from prune2drive.pruning.context import Context
from prune2drive.pruning.question_relevance import question_relevance
from prune2drive.pruning.selection import determinantal

SPANS = ("pool", "sample")
RELEVANCES = ("text", "clip")


@dataclass
class CDPruner(Pruner):
    """Selects by greedy MAP of a determinantal point process with kernel relevance_i cos_ij relevance_j.

    The authors' relevance is `clip`: minus the cosine of a patch with the question, by CLIP. It needs a vision tower
    that has a text tower, as LLaVA-1.5's. `text` is the variant for all models, which OpenVINO GenAI ships: the mean
    cosine of a token with the LLM's embeddings of the question. CLIP's work is not part of `flops`.

    Differs from the released code: it divides by zero where the kept tokens span all others; here the most relevant of
    these come first. It computes in float32, in which rounding drowns what a token adds once the kept ones all but span
    the others; here that is computed in float64, whatever `dtype`. It scales relevance over all crops of a batch, so
    that one camera's tokens change what another keeps; here `span` says over what.

    Args:
        span: tokens over which relevance is scaled to 0..1: those of the `pool`, or of all cameras of the `sample`.
        strength: exponent of relevance; 0 is diversity alone.
        relevance: `text` or `clip`.
        clip: with `relevance=clip`, a folder or an id on the Hugging Face hub of the CLIP that the vision tower was
            taken from.
    """

    layer: int = 0
    span: str = "pool"
    strength: float = 1.0
    relevance: str = "text"
    clip: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("pruner.span", self.span, SPANS)
        if not self.strength >= 0:
            raise InputError(f"CDPruner: strength={self.strength} must be 0 or higher")
        check_choice("pruner.relevance", self.relevance, RELEVANCES)
        if (self.relevance == "clip") != (self.clip is not None):
            raise InputError(
                f"CDPruner: relevance={self.relevance} with clip={self.clip}: relevance=clip takes the checkpoint of a "
                "CLIP as clip=, relevance=text takes none"
            )

    @property
    def traits(self) -> Traits:
        return Traits(
            positions="renumber",
            reads_other_cameras=self.span == "sample",
            needs_vision=self.relevance == "clip",
        )

    @cached_property
    def _clip(self) -> Clip:
        return Clip(str(self.clip))

    def unsupported_reason(self, config: Any) -> str:
        return self._clip.unsupported_reason(config) if self.relevance == "clip" else ""

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        similarity_CNN = _cosines(tokens_CND)
        if self.relevance == "clip":
            relevance_CN = clip_relevance(ctx, self._clip, self.span)
        else:
            relevance_CN = question_relevance(ctx, self.span)
        log_relevance_CN = relevance_CN.log().to(similarity_CNN)
        return determinantal(similarity_CNN, self.strength * log_relevance_CN, k)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the similarity matrix (2 D a pair), and in each step a product with all earlier factors."""
        return 2 * count * count * channels + count * k * k


def _cosines(tokens_CND: Tensor) -> Tensor:
    """Returns the tokens' cosines in float64, [C, N, N], exactly 1 on the diagonal."""
    unit_CND = normalize(tokens_CND.double(), dim=-1)
    cosine_CNN = unit_CND @ unit_CND.transpose(1, 2)
    own_CN = cosine_CNN.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(cosine_CNN.dtype).eps)
    return cosine_CNN / (own_CN[:, :, None] * own_CN[:, None]).sqrt()
