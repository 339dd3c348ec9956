"""Pruned greedy decoding worked out by hand: no hooks, no cache, no code of the engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Given:
    """What the stock model hands its decoder for one prompt: embeddings, position ids, deepstack features."""

    embeds_PD: Tensor
    ids_AP: Tensor
    visual_P: Tensor | None
    deepstack: list[Tensor]

    @classmethod
    def by(cls, model: Any, inputs: dict[str, Tensor]) -> Given:
        caught: dict[str, Any] = {}
        decoder = model.get_decoder()
        hook = decoder.register_forward_pre_hook(lambda _, args, kwargs: caught.update(kwargs), with_kwargs=True)
        model(**inputs)
        hook.remove()
        embeds = caught.get("inputs_embeds")
        embeds = decoder.embed_tokens(inputs["input_ids"]) if embeds is None else embeds
        ids = caught.get("position_ids")
        ids = torch.arange(embeds.shape[1])[None, None] if ids is None else ids
        visual = caught.get("visual_pos_masks")
        return cls(
            embeds[0],
            ids[-3:, 0] if ids.ndim == 3 else ids,
            None if visual is None else visual[0],
            caught.get("deepstack_visual_embeds") or [],
        )


@dataclass
class Stage:
    """A cut: prompt positions that enter a layer, what replaces the states of some, and how many tokens these weigh."""

    layer: int
    kept_K: Tensor
    rows: dict[int, Tensor] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)


def greedy(
    model: Any,
    inputs: dict[str, Tensor],
    kept_K: Tensor,
    layer: int,
    positions: str,
    steps: int,
    said: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Greedy tokens [S] and their logits [S, V] when only `kept_K` of one unpadded prompt enter layer `layer`.

    `said` forces the tokens.
    """
    return staged(model, inputs, [Stage(layer, kept_K)], positions, steps, said)


@torch.no_grad()
def staged(
    model: Any,
    inputs: dict[str, Tensor],
    stages: list[Stage],
    positions: str,
    steps: int,
    said: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The same with several cuts, each among what the one before left."""
    given, decoder = Given.by(model, inputs), model.get_decoder()
    prompt, depth = len(given.embeds_PD), len(decoder.layers)
    tokens: list[int] = []
    logits = []
    for step in range(steps):
        states = torch.cat([given.embeds_PD, decoder.embed_tokens(torch.tensor(tokens, dtype=torch.long))])
        later = given.ids_AP.max() + 1 + torch.arange(step)
        all_ids_AP = torch.cat([given.ids_AP, later.expand(len(given.ids_AP), -1)], dim=1)
        at_K, ids_AK, first = torch.arange(prompt + step), all_ids_AP, 0
        log_sizes_P = torch.zeros(prompt + step)
        for stage in stages:
            states = _layers(decoder, states, ids_AK, at_K, range(first, stage.layer), given, log_sizes_P[at_K])
            kept_K = torch.cat([stage.kept_K, prompt + torch.arange(step)])
            states = torch.stack([states[(at_K == at).nonzero().item()] for at in kept_K])
            at_K, first = kept_K, stage.layer
            for at, row in stage.rows.items():
                states[at_K == at] = row
            for at, size in stage.sizes.items():
                log_sizes_P[at] = math.log(size)
            ids_AK = all_ids_AP[:, at_K]
            if positions == "renumber":
                rank = {used: place for place, used in enumerate(sorted(set(ids_AK.flatten().tolist())))}
                ids_AK = torch.tensor([[rank[used] for used in axis] for axis in ids_AK.tolist()])
        states = _layers(decoder, states, ids_AK, at_K, range(first, depth), given, log_sizes_P[at_K])
        logits.append(model.lm_head(decoder.norm(states[-1])))
        tokens.append(said[step] if said else int(logits[-1].argmax()))
    return torch.tensor(tokens), torch.stack(logits)


def _layers(
    decoder: Any, states_KD: Tensor, ids_AK: Tensor, at_K: Tensor, which: range, given: Given, log_sizes_K: Tensor
) -> Tensor:
    """Runs some decoder layers on the prompt positions `at_K`, with a causal mask made by hand."""
    size, states = len(states_KD), states_KD[None].clone()
    mask = torch.full((size, size), torch.finfo(torch.float32).min).triu(1)[None, None] + log_sizes_K
    rotary = decoder.rotary_emb(states, ids_AK[:, None] if len(ids_AK) > 1 else ids_AK)
    for index in which:
        states = decoder.layers[index](states, attention_mask=mask, position_embeddings=rotary, position_ids=None)
        if index < len(given.deepstack):
            features_PD = torch.zeros_like(given.embeds_PD)
            features_PD[given.visual_P] = given.deepstack[index]
            of_prompt = at_K < len(features_PD)
            states[0, of_prompt] += features_PD[at_K[of_prompt]]
    return states[0]


def by_the_determinant(kernel_NN, k, first=()):
    """Each step takes the token with which the determinant of the kept ones' kernel is largest."""
    picks = list(first)
    while len(picks) < k:
        left = [i for i in range(len(kernel_NN)) if i not in picks]
        sets = {i: torch.tensor([*picks, i]) for i in left}
        picks.append(max(left, key=lambda i: torch.linalg.slogdet(kernel_NN[sets[i]][:, sets[i]])[1]))
    return picks


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def kernel(rows, quality):
    similarity = torch.tensor([[cosine(a, b) for b in rows] for a in rows], dtype=torch.float64)
    quality = torch.tensor(quality, dtype=torch.float64)
    return quality[:, None] * similarity * quality
