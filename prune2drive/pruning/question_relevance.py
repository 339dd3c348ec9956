"""Relevance of visual tokens to the question, by the LLM's own embeddings.

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
    """Returns the mean cosine of each token with the text after the last image, scaled to (0, 1]; float32 [C, N].

    Both are taken as they enter the LLM. The text is the question and the end of the chat template.

    Args:
        ctx: the selection's context.
        over: tokens whose smallest and largest value set the scale: the `pool`, or all cameras of the `sample`.

    Raises:
        InputError: a prompt without text after its images.
    """
    return torch.stack([_relevance(ctx, pool, over) for pool in ctx.pools])


def _relevance(ctx: Context, pool: Pool, over: str) -> Tensor:
    embeddings_PD, is_text_P = ctx.embeddings_BPD[pool.row], ctx.question_BP[pool.row]
    if not is_text_P.any():
        raise InputError(f"sample {pool.sample_id}: no text after the last image to compare tokens with")
    text_D = normalize(embeddings_PD[is_text_P.to(embeddings_PD.device)].float(), dim=-1).mean(dim=0)

    def cosines(at: Tensor) -> Tensor:
        return normalize(embeddings_PD.index_select(0, at.to(embeddings_PD.device)).float(), dim=-1) @ text_D

    own_N = cosines(pool.at_N)
    return scaled(own_N, own_N if over == "pool" else cosines(_visual(pool, len(embeddings_PD))))


def _visual(pool: Pool, length: int) -> Tensor:
    """Returns the positions of all visual tokens of the pool's sample in a batch of `length` before any cut."""
    token_map = pool.token_map
    return (token_map.view_P >= 0).nonzero().flatten() + length - token_map.length


def scaled(scores: Tensor, among: Tensor) -> Tensor:
    """Scales scores by the smallest and the largest of `among` on its last axis; (0, 1], 1 where all are equal."""
    low, high = among.amin(dim=-1, keepdim=True), among.amax(dim=-1, keepdim=True)
    return (scores - low + EPSILON) / (high - low + EPSILON)
