"""What happens at each layer of a model inside `prune`.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, D channels.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.families import decoder_of, family_of
from prune2drive.families.base import ImageInfo
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.selection_cache import Orders
from prune2drive.pruning.reuse.shared_prefix import Together
from prune2drive.pruning.surgery import checks as guards
from prune2drive.pruning.surgery import selecting as plan
from prune2drive.pruning.surgery.budgets import Budgeting
from prune2drive.pruning.surgery.capture import Looks
from prune2drive.pruning.surgery.cut import Call, Cut, Forward
from prune2drive.pruning.surgery.mask import Masks
from prune2drive.pruning.surgery.patch import shadow
from prune2drive.pruning.surgery.prompt import Naming, Prompt
from prune2drive.pruning.surgery.rotary import Rotary
from prune2drive.pruning.surgery.selecting import Picks, Trace

_ACTIVE: WeakSet[nn.Module] = WeakSet()


class Engine:
    """The state behind one `prune` context, and its hooks; what it is made of is explained there."""

    def __init__(
        self,
        model: Any,
        pruner: Pruner,
        budgeting: Budgeting,
        naming: Naming,
        positions: str,
        orders: Orders | None,
    ) -> None:
        self.model, self.budgeting, self.naming = model, budgeting, naming
        self.orders = orders
        self.decoder = model.get_decoder()
        self.config = self.decoder.config
        self.trace = Trace()
        self.images = ImageInfo()
        self.call = Call()
        self.last_ids: Tensor | None = None
        self.last_position: Tensor | int = 0
        self.prompt: Prompt | None = None
        self.cuts: list[Cut] = []
        self.together: Together | None = None
        self.pools: list[Pool] = []
        self.sizes: list[list[int]] = []
        self.looks = Looks(model, type(pruner).__name__)
        self.rotary = Rotary(self.decoder, positions)
        self.masks = Masks(self.config)
        guards.check_decoder(self.decoder, pruner)
        guards.check_model(model.config, pruner)
        guards.check_policy(budgeting.policy, pruner)
        self.pruner = pruner.fit(len(self.decoder.layers))
        if self.decoder in _ACTIVE:
            raise InputError("this model is already inside a prune() context: leave it before entering another")
        if pruner.drops:
            for names in naming.camera_names(rows=len(naming.cameras or ())) or ():
                budgeting.policy.ratios(names)

    def install(self, undo: ExitStack) -> None:
        """Registers the hooks; `undo` takes back every one of them."""
        _ACTIVE.add(self.decoder)
        undo.callback(_ACTIVE.discard, self.decoder)

        def hook(module: nn.Module, function: Any) -> None:
            undo.callback(module.register_forward_pre_hook(function, with_kwargs=True).remove)

        for module in dict.fromkeys((self.model, self.model.base_model)):
            hook(module, self._on_model)
        hook(self.decoder, self._on_decoder)
        cuts = self.pruner.cuts
        hook(self.decoder.layers[0], self._on_first_layer)
        for index in range(len(self.decoder.layers)):
            if index >= cuts[0]:
                hook(self.decoder.layers[index], partial(self._on_layer, index))
                if self.orders:
                    shadow(undo, self.decoder.layers[index], "forward", partial(self._on_layer_behind, index))
            if index + 1 in cuts:
                hook(self.decoder.layers[index], partial(self._on_layer_before, index))
        if self.pruner.needs_vision:
            self.looks.watch(family_of(self.model.config).feature_layer(self.model), undo)
        encoder = self.model.base_model
        if hasattr(encoder, "get_image_features"):
            shadow(undo, encoder, "get_image_features", self._on_image_features)
        if adds_features := decoder_of(self.config).adds_features:
            shadow(undo, self.decoder, adds_features, self._on_deepstack)

    # What a forward pass brings

    def _on_image_features(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        self.images = ImageInfo.of_call(given)
        return original(*args, **kwargs)

    def _on_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given = {**given.pop("kwargs", {}), **given}
        if given.get("labels") is not None and self.pruner.drops:
            raise InputError("labels have the full prompt's length, a pruned prompt has not: call without labels")
        self.call = Call.of(given, self.call)

    def _on_decoder(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        cache = kwargs.get("past_key_values")
        mask = kwargs.get("attention_mask")
        guards.check_forward(cache, mask)
        embeds = kwargs.get("inputs_embeds")
        inputs = embeds if embeds is not None else kwargs.get("input_ids", args[0] if args else None)
        if inputs is None:
            raise InputError("the decoder was called without inputs")
        self.step = Forward(0 if cache is None else cache.get_seq_length(), mask, kwargs.get("position_ids"))
        if self.step.is_prefill:
            self._begin(len(inputs), inputs.shape[1], kwargs.get("use_cache") is False)
        else:
            self._continue(inputs.shape[1])
        self.call = Call()

    def _begin(self, rows: int, length: int, recomputes: bool) -> None:
        """A new prompt: finds its visual tokens."""
        ids = self.call.input_ids
        guards.check_prompt(self.call, self.pruner, self.last_ids if recomputes else None)
        self.last_ids = ids
        mask = self.step.mask
        mask_BP = None if mask is None or bool(mask.all()) else mask.bool()
        maps = self.naming.token_maps(rows, ids, mask_BP, self.model.config, self.images)
        self.prompt = Prompt.build(maps, length, mask_BP, self.naming.ids(rows, ids, mask_BP), self.naming.asked(rows))
        self.last_position = self.step.span[1] if self.step.span else length - 1
        self.cuts, self.together, self.pools = [], None, self.prompt.pools(self.pruner.scope)
        self.looks.begin()
        self.images = ImageInfo()
        self.trace.clear()
        self.trace.nominal_tokens = self.budgeting.of_rows(self.pools, self.pruner, rows)

    def _continue(self, width: int) -> None:
        """More tokens behind a cached prompt."""
        if self.prompt is None:
            raise InputError("the KV cache was filled outside this prune() context: start from the whole prompt")
        is_cut_before_llm = bool(self.cuts) and self.cuts[0].layer == 0
        guards.check_continuation(self.call, self.step, width, self.last_position if is_cut_before_llm else None)

    # What layers get instead

    def _on_first_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.step.is_prefill:
            self.looks.embeddings = args[0]

    def _on_layer_before(self, index: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.step.is_prefill:
            self.looks.on_layer_before(index, module, args, kwargs, self._real(index))

    def _on_layer(self, index: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        hidden = args[0]
        is_new = self.step.is_prefill and index in self.pruner.cuts
        if is_new:
            hidden = self._cut(index, module, hidden, kwargs)
        cut = self._cut_of(index)
        if cut is None:
            return None
        assert self.prompt is not None
        rotary = self.rotary.behind(cut, self.step, hidden, kwargs["position_embeddings"], self.prompt.length)
        if rotary is not None:
            kwargs["position_embeddings"] = rotary
        cache = kwargs.get("past_key_values")
        kwargs["attention_mask"] = self.masks.behind(cut, self.step, hidden, cache, index, self.prompt.length)
        # Ids with gaps would be read as packed sequences by the flash kernels.
        kwargs["position_ids"] = None
        return (hidden, *args[1:]), kwargs

    def _on_layer_behind(self, index: int, original: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.step.is_prefill and self.together:
            return self.together(original, index, hidden, *args, **kwargs)
        return original(hidden, *args, **kwargs)

    def _cut_of(self, index: int) -> Cut | None:
        """The last cut at or before a layer."""
        return next((cut for cut in reversed(self.cuts) if cut.layer <= index), None)

    def _real(self, index: int) -> Tensor | None:
        """True at the positions of a layer that are no padding; None where none are."""
        assert self.prompt is not None
        cut = self._cut_of(index)
        if cut is None:
            return self.prompt.mask_BP
        return cut.real_BK if cut.is_ragged else None

    def _cut(self, index: int, module: nn.Module, hidden_BPD: Tensor, given: Mapping[str, Any]) -> Tensor:
        """Lets the method choose, records it, and returns the states of what is left."""
        prompt = self.prompt
        assert prompt is not None
        _synchronize(hidden_BPD)
        start = time.perf_counter()
        pools, stage = self.pools, self.pruner.cuts.index(index)
        if stage == 0:
            self.sizes, self.trace.select_flops = self.budgeting.allocate(hidden_BPD, pools, self.pruner)
        sizes = self.sizes[stage]
        if all(size == len(pool.at_N) for size, pool in zip(sizes, pools, strict=True)):
            plan.record(self.trace, self.pruner, index, prompt, pools, [Picks(torch.arange(size)) for size in sizes], 0)
        else:
            before = self._cut_of(index)
            turned = given["position_embeddings"] if before is None else self.step.rotary[before.layer]
            cos, sin = (part.to(hidden_BPD.device) for part in turned)
            view = LayerView(module, hidden_BPD, (cos, sin), self._real(index))
            context, alike = self.looks.context(view, prompt, before), None
            if self.orders:
                picks = self.orders.choose(self.pruner, hidden_BPD, pools, sizes, context)
                alike = self.orders.alike(self.pruner, prompt.sample_ids, given.get("past_key_values"))
            else:
                picks = plan.choose(self.pruner, hidden_BPD, pools, sizes, context)
            plan.record(self.trace, self.pruner, index, prompt, pools, picks, hidden_BPD.shape[-1])
            hidden_BPD, cut = plan.carry_out(index, hidden_BPD, view.mask_BP, pools, picks, prompt.starts, alike)
            if self.pruner.merges or index < self.pruner.cuts[-1]:
                self.pools = plan.left(pools, picks, cut)
            cut = cut.within(before)
            if self.pruner.merges:
                hidden_BPD, cut = plan.merged(hidden_BPD, cut, self.pools, picks)
            self.cuts.append(cut)
            self.together = Together(cut.beginnings, cut.real_BK, self.config) if cut.beginnings else None
        self.trace.positions = plan.own_positions(prompt, self.cuts)
        _synchronize(hidden_BPD)
        self.trace.select_seconds += time.perf_counter() - start
        self.looks.before = None
        return hidden_BPD

    def _on_deepstack(self, original: Any, hidden: Tensor, visual_BP: Tensor, embeds_VD: Tensor) -> Tensor:
        """Qwen3-VL adds vision features to early layers at all visual positions: only kept ones are left."""
        if not self.cuts:
            return original(hidden, visual_BP, embeds_VD)
        return original(hidden, *self.cuts[-1].deepstack(visual_BP, embeds_VD))


def _synchronize(states: Tensor) -> None:
    if states.is_cuda:
        torch.cuda.synchronize(states.device)
