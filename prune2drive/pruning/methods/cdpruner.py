"""CDPruner (NeurIPS 2025, arXiv 2506.10967): diverse tokens among those that the question is about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.methods.clip import Clip, clip_relevance
from prune2drive.pruning.methods.question_relevance import question_relevance

SPANS = ("pool", "sample")
RELEVANCES = ("text", "clip")


@dataclass
class CDPruner(Pruner):
    """Greedy maximum of a determinantal point process whose kernel is relevance_i cos_ij relevance_j.

    The authors take relevance from CLIP, `relevance=clip`: the cosine of a patch with the question, of negative sign.
    That needs a vision tower with a text tower beside it, as LLaVA-1.5's. `relevance=text` is the variant for all
    models: the mean cosine of a token with the LLM's own embeddings of the question, of positive sign, as OpenVINO
    GenAI ships it. CLIP is given the question alone, and its work is not part of `flops`.

    Where the kept tokens span all others no determinant tells these apart, and the most relevant come first; the
    released code divides by zero.

    Args:
        span: what relevance is scaled to 0..1 over. The released code takes all crops of a batch
            together, so one camera's tokens change what another keeps and with it what its budget is
            worth; by default each `pool` is scaled by itself, `sample` takes all cameras.
        strength: exponent of relevance; 0 leaves diversity alone.
        relevance: `text` or `clip`.
        clip: for `relevance=clip`: a folder, or an id on the Hugging Face hub, of the CLIP that the vision tower was
            taken from.
    """

    layer: int = 0
    span: str = "pool"
    strength: float = 1.0
    relevance: str = "text"
    clip: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.span not in SPANS:
            raise InputError(f"CDPruner: span={self.span!r} is not one of {', '.join(SPANS)}")
        if not self.strength >= 0:
            raise InputError(f"CDPruner: strength={self.strength} must be 0 or higher")
        if self.relevance not in RELEVANCES:
            raise InputError(f"CDPruner: relevance={self.relevance!r} is not one of {', '.join(RELEVANCES)}")
        if (self.relevance == "clip") != (self.clip is not None):
            raise InputError(
                f"CDPruner: relevance={self.relevance} with clip={self.clip}: relevance=clip takes the checkpoint of a "
                "CLIP as clip=, relevance=text takes none"
            )

    @property
    def traits(self) -> Traits:
        return Traits(positions="renumber", needs_vision=self.relevance == "clip")

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
        """The similarity matrix (2 D per pair), and per step a product with all earlier ones' factors."""
        return 2 * count * count * channels + count * k * k


def _cosines(tokens_CND: Tensor) -> Tensor:
    """Cosines [C, N, N] of the tokens, exactly 1 on the diagonal; at least float32, as determinants need it."""
    unit_CND = normalize(tokens_CND, dim=-1)
    cosine_CNN = unit_CND @ unit_CND.transpose(1, 2)
    cosine_CNN = cosine_CNN.to(torch.promote_types(cosine_CNN.dtype, torch.float32))
    own_CN = cosine_CNN.diagonal(dim1=1, dim2=2).clamp(min=torch.finfo(cosine_CNN.dtype).eps)
    return cosine_CNN / (own_CN[:, :, None] * own_CN[:, None]).sqrt()


def determinantal(similarity_CNN: Tensor, log_quality_CN: Tensor, k: int) -> Tensor:
    """Greedy MAP of determinantal point processes with kernel q_i s_ij q_j; indices in selection order [C, K].

    Each step takes the token that multiplies the determinant most: q_i^2 times what of its similarity to
    itself the kept ones leave, followed by rows of the Cholesky factor (Chen, Zhang & Zhou, NeurIPS
    2018). Quality cancels out of the factor, which is therefore that of the similarities: a pick of
    small quality loses no precision. Leftovers within rounding of zero (N times the type's epsilon, as
    in LAPACK's pivoted Cholesky) count as none; tokens without any come last, best quality first.

    Args:
        similarity_CNN: positive semidefinite.
        log_quality_CN: log q.
        k: tokens to select, 1 <= k <= N.
    """
    pools, count = log_quality_CN.shape
    pool_C = torch.arange(pools, device=similarity_CNN.device)
    rounding = count * torch.finfo(similarity_CNN.dtype).eps
    left_CN = similarity_CNN.diagonal(dim1=1, dim2=2).clone()
    free_CN = torch.ones_like(left_CN, dtype=torch.bool)
    factor_CKN = similarity_CNN.new_zeros(pools, k, count)
    picks_CK = torch.empty(pools, k, dtype=torch.long, device=similarity_CNN.device)
    for step in range(k):
        spans_CN = free_CN & (left_CN > rounding)
        gain_CN = (2 * log_quality_CN + left_CN.clamp(min=rounding).log()).masked_fill(~spans_CN, -torch.inf)
        rest_CN = log_quality_CN.masked_fill(~free_CN, -torch.inf)
        pick_C = torch.where(spans_CN.any(dim=1, keepdim=True), gain_CN, rest_CN).argmax(dim=1)
        picks_CK[:, step] = pick_C
        free_CN[pool_C, pick_C] = False
        known_CN = (factor_CKN[pool_C, :step, pick_C].unsqueeze(1) @ factor_CKN[:, :step]).squeeze(1)
        scale_C1 = left_CN[pool_C, pick_C].clamp(min=rounding).sqrt()[:, None]
        factor_CKN[:, step] = (similarity_CNN[pool_C, pick_C] - known_CN) / scale_C1
        left_CN = left_CN - factor_CKN[:, step] ** 2
    return picks_CK
