"""Pruning inside a stock Hugging Face model, by forward pre-hooks: the only model surgery there is.

At the input of layer k the hidden states are gathered at the kept positions; every later layer gets
rotary embeddings and a mask of the kept length. A method may cut several times: each cut is made among what
the one before left. The KV cache is left alone: layers below k hold the whole prompt, the others the kept one.
`generate` goes on counting positions at full length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.ratios import RatioPolicy, as_policy
from prune2drive.pruning.reuse.selection_cache import Orders
from prune2drive.pruning.surgery import checks as guards
from prune2drive.pruning.surgery.budgets import Budgeting
from prune2drive.pruning.surgery.engine import Engine
from prune2drive.pruning.surgery.prompt import Naming
from prune2drive.pruning.surgery.selecting import Trace
from prune2drive.token_map import TokenMap


@contextmanager
def prune(
    model: Any,
    pruner: Pruner,
    keep: float | Mapping[str, float] | RatioPolicy,
    *,
    cameras: Sequence[str] | Sequence[Sequence[str]] | None = None,
    token_map: TokenMap | Sequence[TokenMap] | None = None,
    positions: str | None = None,
    rounding: str = "nearest",
    budget_axis: str = "final",
    sample_ids: Sequence[str] | None = None,
    questions: Sequence[str] | None = None,
    orders: Orders | None = None,
) -> Iterator[Trace]:
    """Inside this context the model prunes visual tokens; outside nothing is left behind.

        with prune(model, TFPS(layer=1), keep=0.1) as trace:
            model.generate(**inputs)

    Args:
        model: a supported vision-language model, or a bare decoder with `token_map`. Batches are padded
            on the left, by themselves or by `generate`.
        pruner: the method.
        keep: a keep ratio, a ratio per camera, or a ratio policy.
        cameras: names of the prompt's images in order, for all prompts or for each.
        token_map: where the visual tokens lie, for all prompts or for each, in coordinates without
            padding. By default found from the input ids and the model's config.
        positions: `keep` leaves tokens their original position ids, `renumber` closes the gaps; by
            default as the method's authors have it.
        rounding: of budgets; `nearest`, or `seed` for parity with the original implementation.
        budget_axis: what a ratio says: the share of tokens left after the last cut (`final`), or the
            mean share over all decoder layers (`layer_average`).
        sample_ids: names of the prompts for methods that draw at random; by default each prompt's
            text decides, so that its place in a batch does not matter.
        questions: what each prompt asks, in words, for methods that read it with a text model of their own.
        orders: selection orders of prompts that were pruned before, for callers that try many ratios.

    Yields:
        The trace of what was kept, rewritten by every prompt.

    Raises:
        InputError: options that cannot be right, here or, as they show, in the model's forward.
    """
    positions = positions or pruner.positions
    guards.check_options(positions, rounding, budget_axis)
    depth = model.get_decoder().config.num_hidden_layers
    budgeting = Budgeting(as_policy(keep), rounding, budget_axis, depth)
    naming = Naming(cameras, token_map, sample_ids, questions)
    engine = Engine(model, pruner, budgeting, naming, positions, orders)
    with ExitStack() as undo:
        engine.install(undo)
        yield engine.trace
