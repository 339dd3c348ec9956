"""Greedy decoding that checks a draft of each answer in one forward pass instead of saying it token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
        input_ids: the prompts, [B, P].
        logits_processor: applied to what the model says at each place.
        stopping_criteria: unused; drafts have ends.
        generation_config: unused; decoding is greedy.
        drafts: token ids of one answer a prompt, its end token included.
        model_kwargs: what `generate` prepared.

    Returns:
        For each prompt whether its draft is right, [B].
    """
    longest = max(map(len, drafts))
    drafts_BT = input_ids.new_zeros(len(drafts), longest)
    is_draft_BT = torch.zeros_like(drafts_BT, dtype=torch.bool)
    for row, draft in enumerate(drafts):
        drafts_BT[row, : len(draft)] = torch.tensor(draft)
        is_draft_BT[row, : len(draft)] = True
    inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    outputs = model(**inputs, return_dict=True)
    logits_BTV = outputs.logits[:, -1:].float()
    ids = torch.cat([input_ids, drafts_BT], dim=1)
    if longest > 1:
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, num_new_tokens=longest - 1)
        inputs = model.prepare_inputs_for_generation(ids[:, :-1], next_sequence_length=longest - 1, **model_kwargs)
        inputs.pop("logits_to_keep", None)
        logits_BTV = torch.cat([logits_BTV, model(**inputs, return_dict=True).logits.float()], dim=1)
    for place in range(longest if logits_processor else 0):
        logits_BTV[:, place] = logits_processor(ids[:, : input_ids.shape[1] + place], logits_BTV[:, place])
    return ((logits_BTV.argmax(dim=2) == drafts_BT) | ~is_draft_BT).all(dim=1)
