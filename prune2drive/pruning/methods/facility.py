"""Facility location: keeps the tokens that cover best what there is.

Shape suffixes: C pools, N tokens of a pool, T text tokens, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.question_relevance import question_cosines
from prune2drive.pruning.selection import cosines, greedy_coverage

FEATURES = ("tower", "tokens")


@dataclass
class _Coverage(Pruner):
    """Base of methods that compare every token with every other one at each step."""

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the cosines (2 D a pair), and in each step a difference, a maximum and a sum a pair."""
        return 2 * count * count * channels + 3 * count * count * k


@dataclass
class FacilityLocation(_Coverage):
    """Maximizes greedily the sum, over all tokens j, of the largest cosine of j with a kept token.

    Farthest points bound the distance of the worst covered token; this bounds the average, and so favours what there is
    much of. The result is worth at least 1 - 1/e of the optimum (Nemhauser, Wolsey & Fisher, 1978; as a summary of
    data: Lin & Bilmes, 2011), with -1 as the cosine of an uncovered token. The question is not read.
    """

    traits = Traits(shares_picks_per_frame=True)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return greedy_coverage(cosines(tokens_CND), k, uncovered=-1)


@dataclass
class SCOPE(_Coverage):
    """Covers tokens by saliency (SCOPE, NeurIPS 2025, arXiv 2510.24214).

    A step takes the token with the largest attention^alpha * sum over tokens j of max(0, cos_j - cover_j): cosines are
    of the vision tower's features, attention is what the tower's class token pays or, without one, the mean of all
    patches, and an uncovered token has 0. Gains that differ by rounding are ties here, and each camera has its own
    budget; the released code shares one number between the crops of an image.

    Args:
        alpha: exponent of attention; 0 is coverage alone.
    """

    layer: int = 0
    alpha: float = 1.0

    traits = Traits(positions="renumber", shares_picks_per_frame=True, needs_vision=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha >= 0:
            raise InputError(f"SCOPE: alpha={self.alpha} must be 0 or higher")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        received_CN, features_CND = ctx.vision().of_pools(ctx.pools)
        return greedy_coverage(cosines(features_CND), k, weight_CN=received_CN**self.alpha)


@dataclass
class MMTok(_Coverage):
    """Covers the question and the image together (MMTok, ICLR 2026, arXiv 2508.18264).

    What is covered are the T tokens of the text after the last image, and alpha times the N tokens themselves. A text
    token is covered by softmax(cosine / text_temperature) / T over the pool's tokens as they enter the LLM; a token, by
    softmax(cosine / image_temperature) / N of the vision tower's features.

    Differs from the released code, which takes the question alone, without common words, and for LLaVA-1.5 leaves out
    patches of padded borders. Its temperature for the text is 0.01 with Qwen2.5-VL.

    Args:
        alpha: weight of the image.
        text_temperature: temperature of cosines with the text.
        image_temperature: temperature of cosines between tokens.
        features: what tokens are compared with each other by: `tower`, the vision tower's features, or `tokens`, their
            states at the cut, for models whose tower cannot be read.
    """

    layer: int = 0
    alpha: float = 0.5
    text_temperature: float = 0.02
    image_temperature: float = 0.2
    features: str = "tower"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("pruner.features", self.features, FEATURES)
        if not self.alpha >= 0:
            raise InputError(f"MMTok: alpha={self.alpha} must be 0 or higher")
        for name in ("text_temperature", "image_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"MMTok: {name}={getattr(self, name)} must be above 0")

    @property
    def traits(self) -> Traits:
        return Traits(positions="renumber", needs_vision=self.features == "tower")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        vision_CND = ctx.vision().of_pools(ctx.pools)[1] if self.features == "tower" else tokens_CND
        image_CNN = (cosines(vision_CND) / self.image_temperature).softmax(dim=1) / tokens_CND.shape[1]
        cosine_CNT, is_text_CT = question_cosines(ctx)
        text_CNT = (cosine_CNT / self.text_temperature).softmax(dim=1) * (is_text_CT / is_text_CT.sum(1, True))[:, None]
        return greedy_coverage(torch.cat([text_CNT.to(image_CNN), self.alpha * image_CNN], dim=2), k)
