"""Relevance of visual tokens to the question, by the LLM's own embeddings.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, T text positions, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from prune2drive.errors import InputError
from prune2drive.pruning.context import Context

EPSILON = 1e-6
TINY = 1e-12
"""The least norm that is divided by, as in `normalize`."""


def question_relevance(ctx: Context, over: str = "pool") -> Tensor:
    """Returns the mean cosine of each token with the text after the last image, scaled to (0, 1]; float32 [C, N].

    Both are taken as they enter the LLM. The text is the question and the end of the chat template.

    Args:
        ctx: the selection's context.
        over: tokens whose smallest and largest value set the scale: the `pool`, or all cameras of the `sample`.

    Raises:
        InputError: a prompt without text after its images.
    """
    text_BTD, is_text_BT = _question(ctx, ctx.embeddings_BPD)
    return _relevance(ctx, text_BTD.sum(dim=1) / is_text_BT.sum(dim=1, keepdim=True), over)


def prompt_relevance(ctx: Context, over: str = "pool") -> Tensor:
    """Returns the cosine of each token with the mean of all text of the prompt, scaled to (0, 1]; float32 [C, N].

    Both are taken as they enter the LLM. The text is all but visual tokens and what stands directly before or behind
    one, as markers of an image's start and end do: system prompt and chat template too (OpenVINO GenAI 2026.4).

    Args:
        ctx: the selection's context.
        over: tokens whose smallest and largest value set the scale: the `pool`, or all cameras of the `sample`.

    Raises:
        InputError: a prompt without such text.
    """
    share_BP = torch.zeros(ctx.prompt_BPD.shape[:2])
    for pool in {pool.row: pool for pool in ctx.pools}.values():
        is_visual_P = pad(pool.token_map.view_P >= 0, (1, 1))
        is_text_P = ~(is_visual_P[:-2] | is_visual_P[1:-1] | is_visual_P[2:])
        if not is_text_P.any():
            raise InputError(f"sample {pool.sample_id}: no text to compare tokens with")
        share_BP[pool.row, -len(is_text_P) :] = is_text_P / is_text_P.sum()
    text_BD = (share_BP.to(ctx.prompt_BPD.device)[:, None] @ ctx.prompt_BPD.float()).squeeze(1)
    return _relevance(ctx, text_BD, over)


def _relevance(ctx: Context, text_BD: Tensor, over: str) -> Tensor:
    """Returns the likeness of each token to its prompt's text, scaled to (0, 1]; [C, N]."""
    own_CN = ctx.of_pools(_cosines(ctx.embeddings_BPD, text_BD))
    if over == "pool":
        return scaled(own_CN, own_CN)
    cosine_CP = _cosines(ctx.prompt_BPD, text_BD)[ctx.rows_C.to(own_CN.device)]
    length = cosine_CP.shape[1]
    is_visual_CP = torch.stack(
        [pad(pool.token_map.view_P >= 0, (length - pool.token_map.length, 0)) for pool in ctx.pools]
    )
    return scaled(own_CN, torch.where(is_visual_CP.to(own_CN.device), cosine_CP, own_CN[:, :1]))


def question_cosines(ctx: Context) -> tuple[Tensor, Tensor]:
    """Returns the cosine of each token with each text token after the last image, as they enter the LLM.

    Args:
        ctx: the selection's context.

    Returns:
        Cosines [C, N, T] in float32, and where there is text [C, T]: a shorter one has no text at the beginning.

    Raises:
        InputError: a prompt without text after its images.
    """
    text_BTD, is_text_BT = _question(ctx, ctx.embeddings_BPD)
    rows_C = ctx.rows_C.to(text_BTD.device)
    tokens_CND = normalize(ctx.of_pools(ctx.embeddings_BPD).float(), dim=-1)
    return tokens_CND @ text_BTD[rows_C].transpose(1, 2), is_text_BT[rows_C]


def _cosines(states_BPD: Tensor, text_BD: Tensor) -> Tensor:
    """Returns the product of each state's direction with its row's text; [B, P]."""
    states_BPD = states_BPD.float()
    norm_BP = torch.linalg.vector_norm(states_BPD, dim=-1).clamp(min=TINY)
    cosine_BP: Tensor = (states_BPD @ text_BD[:, :, None]).squeeze(2) / norm_BP
    return cosine_BP


def _question(ctx: Context, states_BPD: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the unit states of the text after the last image [B, T, D], 0 where there is none, and where it is."""
    for pool in ctx.pools:
        if not ctx.text_lengths[pool.row]:
            raise InputError(f"sample {pool.sample_id}: no text after the last image to compare tokens with")
    longest = max(ctx.text_lengths)
    is_text_BT = ctx.question_BP[:, -longest:].to(states_BPD.device)
    return normalize(states_BPD[:, -longest:].float(), dim=-1) * is_text_BT[..., None], is_text_BT


def scaled(scores: Tensor, among: Tensor) -> Tensor:
    """Scales scores by the smallest and the largest of `among` on its last axis; (0, 1], 1 where all are equal."""
    low, high = among.amin(dim=-1, keepdim=True), among.amax(dim=-1, keepdim=True)
    return (scores - low + EPSILON) / (high - low + EPSILON)
