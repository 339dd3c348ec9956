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
from prune2drive.pruning.question_relevance import prompt_relevance, question_relevance, scaled
from prune2drive.pruning.selection import determinantal

SPANS = ("pool", "sample")
RELEVANCES = ("text", "prompt", "clip")


@dataclass
class CDPruner(Pruner):
    """Selects by greedy MAP of a determinantal point process with kernel relevance_i cos_ij relevance_j.

    The authors' relevance is `clip`: minus the cosine of a patch with the question, by CLIP. It needs a vision tower
    that has a text tower, as LLaVA-1.5's. `text` is the variant for all models: the mean cosine of a token with the
    LLM's embeddings of the question. CLIP's work is not part of `flops`.

    OpenVINO GenAI 2026.4 ships a variant of its own: `relevance=prompt`, `relevance_weight=0.5`, `halves=true`. It
    keeps relevance out of half of the kernel, and as many tokens of an image's upper half as of its lower one.

    Differs from the released code: it divides by zero where the kept tokens span all others; here the most relevant of
    these come first. It computes in float32, in which rounding drowns what a token adds once the kept ones all but span
    the others; here that is computed in float64, whatever `dtype`. It scales relevance over all crops of a batch, so
    that one camera's tokens change what another keeps; here `span` says over what.

    Args:
        span: tokens over which relevance is scaled to 0..1: those of the `pool`, or of all cameras of the `sample`.
        strength: exponent of relevance; 0 is diversity alone.
        relevance: `text`, `clip`, or `prompt`: the cosine with the mean embedding of all the prompt's text.
        relevance_weight: w of the kernel (1 - w) cos_ij + w relevance_i cos_ij relevance_j; 1 is the authors' kernel.
        halves: whether to select half of a budget among the first half of a pool's tokens and the rest, one more where
            the budget is odd, among the others, with relevance scaled in each half.
        clip: with `relevance=clip`, a folder or an id on the Hugging Face hub of the CLIP that the vision tower was
            taken from.
    """

    layer: int = 0
    span: str = "pool"
    strength: float = 1.0
    relevance: str = "text"
    clip: str | None = None
    relevance_weight: float = 1.0
    halves: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("pruner.span", self.span, SPANS)
        if not self.strength >= 0:
            raise InputError(f"CDPruner: strength={self.strength} must be 0 or higher")
        if not 0 <= self.relevance_weight <= 1:
            raise InputError(f"CDPruner: relevance_weight={self.relevance_weight} must be in 0..1")
        check_choice("pruner.relevance", self.relevance, RELEVANCES)
        if (self.relevance == "clip") != (self.clip is not None):
            raise InputError(
                f"CDPruner: relevance={self.relevance} with clip={self.clip}: relevance=clip takes the checkpoint of a "
                f"CLIP as clip=, relevance={self.relevance if self.relevance != 'clip' else 'text'} takes none"
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
        if self.relevance == "clip":
            relevance_CN = clip_relevance(ctx, self._clip, self.span)
        elif self.relevance == "prompt":
            relevance_CN = prompt_relevance(ctx, self.span)
        else:
            relevance_CN = question_relevance(ctx, self.span)
        first = tokens_CND.shape[1] // 2
        if not self.halves or not first:
            return self._select(tokens_CND, relevance_CN, k)
        picks_CK = torch.empty(len(tokens_CND), k, dtype=torch.long, device=tokens_CND.device)
        for half, start, budget in ((slice(first), 0, k // 2), (slice(first, None), first, k - k // 2)):
            own_CN = relevance_CN[:, half]
            own_CN = scaled(own_CN, own_CN) if self.span == "pool" else own_CN
            # In turns, so that the picks of a smaller budget are the first ones of a larger one.
            picks_CK[:, int(not start) :: 2] = start + self._select(tokens_CND[:, half], own_CN, budget)
        return picks_CK

    def _select(self, tokens_CND: Tensor, relevance_CN: Tensor, k: int) -> Tensor:
        similarity_CNN = _cosines(tokens_CND)
        log_quality_CN = self.strength * relevance_CN.log().to(similarity_CNN)
        if self.relevance_weight < 1:
            weight, relevance_CN = self.relevance_weight, log_quality_CN.exp()
            quality_CN = (1 - weight + weight * relevance_CN**2).sqrt()
            blend_CNN = 1 - weight + weight * relevance_CN[:, :, None] * relevance_CN[:, None]
            similarity_CNN *= blend_CNN / (quality_CN[:, :, None] * quality_CN[:, None])
            log_quality_CN = quality_CN.log()
        return determinantal(similarity_CNN, log_quality_CN, k)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the similarity matrix (2 D a pair), and in each step a product with all earlier factors."""
        parts = [(count // 2, k // 2), (count - count // 2, k - k // 2)] if self.halves else [(count, k)]
        return sum(2 * tokens * tokens * channels + tokens * kept * kept for tokens, kept in parts)


def _cosines(tokens_CND: Tensor) -> Tensor:
    """Returns the tokens' cosines in float64, [C, N, N], exactly 1 on the diagonal."""
    unit_CND = normalize(tokens_CND.double(), dim=-1)
    cosine_CNN = unit_CND @ unit_CND.transpose(1, 2)
    own_CN = cosine_CNN.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(cosine_CNN.dtype).eps)
    return cosine_CNN / (own_CN[:, :, None] * own_CN[:, None]).sqrt()
