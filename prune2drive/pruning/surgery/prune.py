"""`prune`: visual-token pruning inside a stock Hugging Face model, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.ratios import RatioPolicy
from prune2drive.pruning.surgery.hooks import PruningHooks
from prune2drive.pruning.surgery.trace import Trace
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
) -> Iterator[Trace]:
    """Prunes visual tokens inside this context; outside it nothing is left behind.

        with prune(model, TFPS(layer=1), keep=0.1) as trace:
            model.generate(**inputs)

    Args:
        model: a supported vision-language model, or a bare decoder with `token_map`. Batches are padded on the left,
            by themselves or by `generate`.
        pruner: the method.
        keep: a keep ratio in (0, 1], a ratio for each camera, or a ratio policy.
        cameras: names of the prompt's images in order, for all prompts or for each.
        token_map: where the visual tokens lie, for all prompts or for each, in coordinates without padding. By default
            found from the input ids and the model's configuration.
        positions: `keep` leaves kept tokens their position ids, `renumber` closes the gaps; by default what the
            method's authors do.
        rounding: how a ratio becomes a budget: `nearest`, or `seed` for parity with the original implementation.
        budget_axis: what a ratio says: the share of tokens kept after the last cut (`final`), or their mean share over
            all decoder layers (`layer_average`).
        sample_ids: ids of the prompts for methods that draw at random; by default each prompt's text decides, so that
            its place in a batch does not matter.
        questions: what each prompt asks, in words, for methods that read it with a text model of their own.

    Yields:
        The trace of what was kept, rewritten by every prompt.

    Raises:
        InputError: options that cannot be right, here or, as they show, in the model's forward.
    """
    hooks = PruningHooks.of(
        model,
        pruner,
        keep,
        cameras=cameras,
        token_map=token_map,
        positions=positions,
        rounding=rounding,
        budget_axis=budget_axis,
        sample_ids=sample_ids,
        questions=questions,
    )
    with ExitStack() as undo:
        hooks.install(undo)
        yield hooks.trace
