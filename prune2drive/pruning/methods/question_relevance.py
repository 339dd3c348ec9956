"""How much visual tokens have to do with the question, by the LLM's own embeddings.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, V visual tokens of a sample, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.errors import InputError
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool

EPSILON = 1e-6


def question_relevance(ctx: Context, over: str = "pool") -> Tensor:
    """Mean cosine of each token with the text behind the last image, scaled to (0, 1]; float32 [C, N].

    Both as they enter the LLM. The text is the question and the end of the chat template.

    Args:
        ctx: of the selection.
        over: where the smallest and the largest value come from: the `pool`, or all cameras of the `sample`.

    Raises:
        InputError: a prompt without text behind its images.
    """
    return torch.stack([_relevance(ctx, pool, over) for pool in ctx.pools])


def _relevance(ctx: Context, pool: Pool, over: str) -> Tensor:
    embeddings_PD, is_text_P = ctx.embeddings_BPD[pool.row], ctx.question_BP[pool.row]
    if not is_text_P.any():
        raise InputError(f"sample {pool.sample_id}: no text behind the last image to compare tokens with")
    text_D = normalize(embeddings_PD[is_text_P.to(embeddings_PD.device)].float(), dim=-1).mean(dim=0)

    def cosines(at: Tensor) -> Tensor:
        return normalize(embeddings_PD.index_select(0, at.to(embeddings_PD.device)).float(), dim=-1) @ text_D

    own_N = cosines(pool.at_N)
    return scaled(own_N, own_N if over == "pool" else cosines(_visual(pool, len(embeddings_PD))))


def _visual(pool: Pool, length: int) -> Tensor:
    """Positions of all visual tokens of the pool's sample in a batch that nothing was cut from yet."""
    token_map = pool.token_map
    return (token_map.view_P >= 0).nonzero().flatten() + length - token_map.length


def scaled(scores: Tensor, among: Tensor) -> Tensor:
    """Scores between the smallest and the largest of `among` on its last axis, as 0 to 1; 1 where all are equal.

    Never 0, so that even the least one counts for something.
    """
    low, high = among.amin(dim=-1, keepdim=True), among.amax(dim=-1, keepdim=True)
    return (scores - low + EPSILON) / (high - low + EPSILON)
