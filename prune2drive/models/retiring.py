"""Greedy decoding of a batch whose rows leave it as they end: `generate` itself goes on until the longest answer ends.

Shape suffixes: B batch rows, P positions so far (padded), T generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, StoppingCriteria

from prune2drive.families.kv_cache import CACHE

LEAST = 8  # rows for which starting `generate` again costs less than rows that have ended
COUNTING = (
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
)
"""Settings that count tokens from where `generate` starts."""
NEUTRAL = {
    "_from_model_config",
    "bos_token_id",
    "cache_implementation",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}
"""Settings that leave the likeliest token what it is."""


def can_retire(config: Any, options: Mapping[str, Any]) -> bool:
    """Returns whether rows may leave: greedy decoding, with nothing that counts from where `generate` starts.

    Args:
        config: the model's generation config.
        options: options of `generate`.
    """
    is_plain = set(options) <= {"max_new_tokens", "do_sample"} and not options.get("do_sample", config.do_sample)
    is_plain = is_plain and "max_new_tokens" in options and (config.num_beams or 1) == 1
    return is_plain and not any(getattr(config, name, None) for name in COUNTING)


def takes_likeliest(config: Any) -> bool:
    """Returns whether greedy decoding by a generation config takes the likeliest token as the model gives it."""
    return set(config.to_diff_dict()) <= NEUTRAL


class HalfEnded(StoppingCriteria):
    """Stops a batch once half of its rows have ended.

    Args:
        ends: ids of end tokens.
        start: position at which the answers begin.
    """

    def __init__(self, ends: Tensor, start: int) -> None:
        self.ends, self.start = ends, start

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        has_ended_B = torch.isin(input_ids[:, self.start :], self.ends).any(dim=1)
        return (2 * has_ended_B.sum() >= len(has_ended_B)).expand(len(has_ended_B))


def generate_retiring(
    model: Any,
    inputs: Mapping[str, Tensor],
    cache: Cache,
    ends: Tensor,
    keep_rows: Callable[[Tensor], None],
    max_new_tokens: int,
    **options: Any,
) -> Tensor:
    """Generates answers, going on with the rows that are left whenever half of them have ended.

    Args:
        model: the model.
        inputs: its inputs, with `input_ids` and `attention_mask` [B, P].
        cache: the KV cache, empty or of the prompts' beginnings.
        ends: ids of end tokens.
        keep_rows: called with the rows that go on, as indices into those of the call before.
        max_new_tokens: most tokens of an answer.
        options: other options of `generate`.

    Returns:
        Generated tokens [B, T], each row up to its end token.
    """
    ids_BP, mask_BP = inputs["input_ids"], inputs["attention_mask"]
    prompt, rows = ids_BP.shape[1], torch.arange(len(ids_BP), device=ids_BP.device)
    tokens_BT = ids_BP.new_zeros(len(ids_BP), max_new_tokens)
    while True:
        more: dict[str, Any] = {} if len(rows) < LEAST else {"stopping_criteria": [HalfEnded(ends, prompt)]}
        left = max_new_tokens + prompt - ids_BP.shape[1]
        ids_BP = model.generate(**inputs, max_new_tokens=left, **{CACHE: cache}, **more, **options)
        new_BT = ids_BP[:, prompt:]
        tokens_BT[rows, : new_BT.shape[1]] = new_BT
        going_B = ~torch.isin(new_BT, ends).any(dim=1)
        if new_BT.shape[1] == max_new_tokens or not going_B.any():
            return tokens_BT
        going = going_B.nonzero().flatten()
        keep_rows(going)
        cache.reorder_cache(going)  # type: ignore[arg-type]  # wants a LongTensor
        rows, ids_BP = rows[going], ids_BP[going]
        mask_BP = torch.cat([mask_BP, mask_BP.new_ones(len(mask_BP), ids_BP.shape[1] - mask_BP.shape[1])], dim=1)[going]
        inputs = {"input_ids": ids_BP, "attention_mask": mask_BP}
