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
    are_read: bool = True,
    **model_kwargs: Any,
) -> Tensor:
    """A decoding loop for `generate(custom_generate=check_drafts, drafts=...)`: greedy, but never past a draft.

    A draft is right if the model, given the prompt and the draft so far, would say each of its tokens: what
    speculative decoding accepts (Leviathan et al., arXiv 2211.17192), of whole answers.

    Args:
        model: whose `generate` calls this.
        input_ids: the prompts, padded on the left; [B, P].
        logits_processor: applied to what the model says at each place.
        stopping_criteria: unused; drafts have ends.
        generation_config: unused; decoding is greedy.
        drafts: token ids of one answer a prompt, its end token included.
        are_read: whether each prompt is followed by its draft but for the last token, so that both are read at once.
            Otherwise drafts are read in a second forward pass, for pruning that looks at the prompt's last position.
        model_kwargs: what `generate` prepared.

    Returns:
        For each prompt whether its draft is right, [B]; False for all where drafts are read with their prompts under a
        processor that counts answer tokens.
    """
    longest = max(map(len, drafts))
    fill = [[-1] * (longest - len(draft)) for draft in drafts]
    if are_read and any(isinstance(each, COUNTING) for each in logits_processor):
        return input_ids.new_zeros(len(drafts), dtype=torch.bool)
    inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    if are_read:
        drafts_BT = input_ids.new_tensor([[*left, *draft] for left, draft in zip(fill, drafts, strict=True)])
        ids, first = input_ids, input_ids.shape[1] - longest + 1
        logits_BTV = model(**{**inputs, "logits_to_keep": longest}, return_dict=True).logits.float()
    else:
        drafts_BT = input_ids.new_tensor([[*draft, *right] for right, draft in zip(fill, drafts, strict=True)])
        ids, first = torch.cat([input_ids, drafts_BT.clamp(min=0)], dim=1), input_ids.shape[1]
        outputs = model(**inputs, return_dict=True)
        logits_BTV = outputs.logits[:, -1:].float()
        if longest > 1:
            model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, num_new_tokens=longest - 1)
            inputs = model.prepare_inputs_for_generation(ids[:, :-1], next_sequence_length=longest - 1, **model_kwargs)
            inputs.pop("logits_to_keep", None)
            logits_BTV = torch.cat([logits_BTV, model(**inputs, return_dict=True).logits.float()], dim=1)
    for place in range(longest if logits_processor else 0):
        logits_BTV[:, place] = logits_processor(ids[:, : first + place], logits_BTV[:, place])
    return ((logits_BTV.argmax(dim=2) == drafts_BT) | (drafts_BT < 0)).all(dim=1)
