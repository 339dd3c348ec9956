"""Greedy decoding that verifies a draft of each answer in one forward pass instead of generating it token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation import logits_process

COUNTING = (  # logits processors that count from the end of the prompt, which a draft in the prompt hides
    logits_process.MinLengthLogitsProcessor,
    logits_process.MinNewTokensLengthLogitsProcessor,
    logits_process.ForcedBOSTokenLogitsProcessor,
    logits_process.ForcedEOSTokenLogitsProcessor,
    logits_process.ExponentialDecayLengthPenalty,
    logits_process.SuppressTokensAtBeginLogitsProcessor,
)


def verify_drafts(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    drafts: Sequence[Sequence[int]] = (),
    draft_in_prompt: bool = True,
    **model_kwargs: Any,
) -> Tensor:
    """Tells which drafts greedy decoding would generate: a decoding loop for `generate(custom_generate=verify_drafts)`.

    A draft is right if the model, given the prompt and the draft so far, prefers each token of the draft. Speculative
    decoding accepts tokens in this way (Leviathan et al., arXiv 2211.17192); here whole answers are accepted.

    Args:
        model: the model whose `generate` calls this.
        input_ids: the prompts, padded on the left; [B, P].
        logits_processor: changes the logits of each position.
        stopping_criteria: unused, since drafts have ends.
        generation_config: unused, since decoding is greedy.
        drafts: token ids of one answer for each prompt, the end token included.
        draft_in_prompt: whether each prompt ends with its draft except for the draft's last token, so that one forward
            pass reads both. Otherwise drafts are read in a second forward pass, for pruning methods that look at the
            prompt's last position.
        model_kwargs: the other inputs that `generate` prepared.

    Returns:
        Whether each draft is right, [B]. With `draft_in_prompt` under a logits processor that counts answer tokens, no
        draft is.
    """
    longest = max(map(len, drafts))
    fill = [[-1] * (longest - len(draft)) for draft in drafts]
    if draft_in_prompt and any(isinstance(processor, COUNTING) for processor in logits_processor):
        return input_ids.new_zeros(len(drafts), dtype=torch.bool)
    inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    if draft_in_prompt:
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
