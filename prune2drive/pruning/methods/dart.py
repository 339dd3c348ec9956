"""DART (EMNLP 2025, arXiv 2502.11494): keeps tokens that duplicate a few pivot tokens least.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, D channels, T text positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.errors import check_whole
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.selection import highest


@dataclass
class DART(Pruner):
    """Keeps image pivots and, for every image and text pivot, the tokens of lowest cosine with it.

    Pivots have the largest L1 norm of keys, after rotary embedding, in the layer before the cut: some of the pool's
    tokens, and some of the text after the last image. Cosines are of the states that enter the cut, after the decoder's
    last norm. Pivots take the same number of tokens one after another, image pivots before text pivots, by ascending
    position.

    Differs from the authors' rule, which keeps `image_pivots + pivots * floor(k / pivots)` tokens (`raw_C`) instead of
    k: where that is too many, the last choices of the last pivots are dropped, then image pivots of the smallest norm;
    where it is too few, pivots in turn take one more. The released code goes through pivots in the order of a Python
    set, and knows one image.

    Args:
        image_pivots: number of image pivots in a pool.
        text_pivots: number of text pivots; fewer where the text after the last image is shorter.
    """

    layer: int = 2
    image_pivots: int = 4
    text_pivots: int = 4

    traits = Traits(nested=False, needs_attention=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("pruner.image_pivots", self.image_pivots)
        check_whole("pruner.text_pivots", self.text_pivots, least=0)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Selection:
        assert ctx.before is not None
        device = tokens_CND.device
        norm_BP = ctx.before.keys().abs().sum(dim=(1, 3), dtype=torch.float32).to(device)
        rows_C = ctx.rows_C.to(device)
        pivots_CN = highest(ctx.of_pools(norm_BP), self.image_pivots)
        text_CT, is_text_CT = self._text_pivots(norm_BP, ctx.question_BP.to(device), rows_C)

        texts_CTD = ctx.at.hidden_BPD[rows_C[:, None].to(ctx.at.hidden_BPD.device), text_CT].to(tokens_CND)
        images_CND, texts_CTD = (normalize(ctx.norm(part).to(tokens_CND), dim=-1) for part in (tokens_CND, texts_CTD))
        served_CN = pivots_CN.sort(dim=1).values
        pivots_CTD = torch.cat([images_CND.gather(1, _spread(served_CN, images_CND)), texts_CTD], dim=1)
        is_pivot_CT = torch.cat([torch.ones_like(served_CN, dtype=torch.bool), is_text_CT], dim=1)
        return _kept(pivots_CTD @ images_CND.transpose(1, 2), pivots_CN, is_pivot_CT, k)

    def _text_pivots(self, norm_BP: Tensor, question_BP: Tensor, rows_C: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the positions of each pool's text pivots, ascending [C, T], and which of them exist."""
        norm_BP = norm_BP.masked_fill(~question_BP, -1)
        at_BT = highest(norm_BP, self.text_pivots).sort(dim=1).values
        return at_BT[rows_C], question_BP.gather(1, at_BT)[rows_C]

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the products with the pivots (2 D a product)."""
        return 2 * (self.image_pivots + self.text_pivots) * count * channels


def _kept(cosine_CTN: Tensor, pivots_CN: Tensor, is_pivot_CT: Tensor, k: int) -> Selection:
    """Selects exactly k tokens, which pivots choose in turn.

    Args:
        cosine_CTN: cosine of pivots, in their order, with tokens.
        pivots_CN: tokens that are image pivots, largest norm first.
        is_pivot_CT: False where a pool has fewer pivots.
        k: tokens to keep.
    """
    pools, pivots, count = cosine_CTN.shape
    images = torch.arange(-pivots_CN.shape[1], 0, device=cosine_CTN.device)
    # A token's place among the kept: image pivots, then the first choice of every pivot, then the second ones, ...
    place_CN = torch.full((pools, count), pivots * (count + 1), device=cosine_CTN.device)
    place_CN.scatter_(1, pivots_CN, images.expand(pools, -1))
    free_CN = torch.ones_like(place_CN, dtype=torch.bool).scatter(1, pivots_CN, False)

    def serve(rounds_C1: Tensor, size_C1: Tensor) -> None:
        """Lets every pivot in turn take its next `size` tokens, after `rounds` earlier rounds."""
        for pivot in range(pivots):
            order_CN = cosine_CTN[:, pivot].masked_fill(~free_CN, torch.inf).argsort(dim=1, stable=True)
            rank_CN = order_CN.argsort(dim=1)
            takes_CN = free_CN & (rank_CN < size_C1) & is_pivot_CT[:, pivot, None]
            place_CN.copy_(torch.where(takes_CN, (rounds_C1 + rank_CN) * pivots + pivot, place_CN))
            free_CN.logical_and_(~takes_CN)

    share_C1 = k // is_pivot_CT.sum(dim=1, keepdim=True)
    serve(torch.zeros_like(share_C1), share_C1)
    raw_C = (~free_CN).sum(dim=1)
    serve(share_C1, torch.ones_like(share_C1))
    return Selection(place_CN.argsort(dim=1, stable=True)[:, :k], raw_C=raw_C.cpu().tolist())


def _spread(index_CK: Tensor, like_CND: Tensor) -> Tensor:
    return index_CK[..., None].expand(-1, -1, like_CND.shape[-1])
