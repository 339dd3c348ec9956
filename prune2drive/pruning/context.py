"""What a pruning method is given besides the tokens, and what it may return besides indices.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.vision import VisionTokens


@dataclass(frozen=True)
class Context:
    """What a method may look at besides the tokens; positions are those of the batch as it is after earlier cuts.

    Args:
        pools: what each row of `tokens_CND` is.
        before: the layer before the cut; None where that is before the LLM.
        at: the layer whose input is cut.
        embeddings_BPD: what entered the LLM.
        prompt_BPD: the same of the whole prompt, before any cut.
        norm: the decoder's last norm.
        question_BP: True at the text behind the last image: the question and the end of the chat template.
        vision: the vision tower's view of the tokens, for methods that declare `needs_vision`.
        questions: what each row of the batch asks, in words, where the caller of `prune` said.
        notes: what a method wants to find again at the prompt's later cuts.
    """

    pools: tuple[Pool, ...]
    before: LayerView | None
    at: LayerView
    embeddings_BPD: Tensor
    prompt_BPD: Tensor
    norm: Callable[[Tensor], Tensor]
    question_BP: Tensor
    vision: Callable[[], VisionTokens]
    questions: Sequence[str] | None = None
    notes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What a method keeps, where that is more than indices.

    Args:
        picks_CK: slots to keep, in selection order, indices into each pool.
        rows_CKD: what the slots hold from now on, where tokens were merged; their own states by default.
        sizes_CK: how many tokens each slot stands for: attention to it is weighted so (proportional attention).
        raw_C: how many tokens the method's own rule would have kept, for those that have no budget.
    """

    picks_CK: Tensor
    rows_CKD: Tensor | None = None
    sizes_CK: Tensor | None = None
    raw_C: Sequence[int] | None = None
