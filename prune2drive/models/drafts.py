"""Greedy decoding that checks a draft of each answer in one forward pass instead of saying it token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation import logits_process

COUNTING = (  # of logits processors: count from the end of the prompt, which a draft behind it hides
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.ExponentialDecayLengthPenalty,
    logits_process.SuppressTokensAtBeginLogitsProcessor,
)


def check_drafts(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    drafts: Sequence[Sequence[int]] = (),
    **model_kwargs: Any,
) -> Tensor:
    """A decoding loop for `generate(custom_generate=check_drafts, drafts=...)`: greedy, but never past a draft.

    A draft is right if the model, given the prompt and the draft so far, would say each of its tokens: what
    speculative decoding accepts (Leviathan et al., arXiv 2211.17192), of whole answers.

    Args:
        model: whose `generate` calls this.
        input_ids: the prompts, each followed by its draft but for the last token, padded on the left; [B, P].
        logits_processor: applied to what the model says at each place.
        stopping_criteria: unused; drafts have ends.
        generation_config: unused; decoding is greedy.
        drafts: token ids of one answer a prompt, its end token included.
        model_kwargs: what `generate` prepared.

    Returns:
        For each prompt whether its draft is right, [B]; False for all under a processor that counts answer tokens.
    """
    longest = max(map(len, drafts))
    drafts_BT = torch.stack([_at_the_right(draft, longest) for draft in drafts]).to(input_ids.device)
    if any(isinstance(each, COUNTING) for each in logits_processor):
        return drafts_BT.new_zeros(len(drafts), dtype=torch.bool)
    inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    logits_BTV = model(**{**inputs, "logits_to_keep": longest}, return_dict=True).logits.float()
    for place in range(longest if logits_processor else 0):
        before = input_ids[:, : input_ids.shape[1] - longest + 1 + place]
        logits_BTV[:, place] = logits_processor(before, logits_BTV[:, place])
    return ((logits_BTV.argmax(dim=2) == drafts_BT) | (drafts_BT < 0)).all(dim=1)


def _at_the_right(draft: Sequence[int], longest: int) -> Tensor:
    """A draft at the right of `longest` places, the others -1."""
    return torch.tensor([-1] * (longest - len(draft)) + list(draft))
