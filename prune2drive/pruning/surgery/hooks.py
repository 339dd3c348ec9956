"""The hooks that prune inside a stock model.

At the input of layer k hidden states are gathered at the kept positions; every later layer gets rotary embeddings and
an attention mask of the kept length. A method may cut several times, each time among what the cut before kept. The KV
cache is left alone: layers below k hold the full prompt, the others the kept one. `generate` goes on counting positions
at full length.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, V visual positions, D channels.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.families import decoder_of, family_of
from prune2drive.families.base import ImageInfo
from prune2drive.families.kv_cache import cache_of
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.ratios import RatioPolicy, as_policy
from prune2drive.pruning.surgery import checks
from prune2drive.pruning.surgery.budgets import BudgetRule
from prune2drive.pruning.surgery.capture import ActivationCapture
from prune2drive.pruning.surgery.cut import Cut, gather, pad_left
from prune2drive.pruning.surgery.forward import ForwardPass, ModelCall
from prune2drive.pruning.surgery.patch import Args, Kwargs, override_method
from prune2drive.pruning.surgery.prompt import Prompt, PromptInfo
from prune2drive.pruning.surgery.resized_images import resize_images
from prune2drive.pruning.surgery.rotary_and_mask import RotaryAndMask
from prune2drive.pruning.surgery.select import Picks, kept_positions, remaining_pools, select_tokens, write_merged
from prune2drive.pruning.surgery.trace import Trace, kept_prompt_positions

H = TypeVar("H", bound="PruningHooks")

_ACTIVE: WeakSet[nn.Module] = WeakSet()


class PruningHooks:
    """The state behind one `prune` context, and its hooks.

    Args:
        model: a supported vision-language model or a bare decoder.
        pruner: the method, resolved for the model's depth.
        budgets: how keep ratios become budgets.
        info: what the caller says about the prompts.
        positions: `keep` or `renumber`.

    Raises:
        InputError: a decoder that cannot be pruned, or one that is already inside a `prune` context.
    """

    def __init__(self, model: Any, pruner: Pruner, budgets: BudgetRule, info: PromptInfo, positions: str) -> None:
        self.model, self.pruner, self.budgets, self.info = model, pruner, budgets, info
        self.decoder = model.get_decoder()
        checks.check_decoder(self.decoder, pruner)
        if self.decoder in _ACTIVE:
            raise InputError("this model is already inside a prune() context: leave it before entering another")
        self.trace = Trace()
        self.capture = ActivationCapture(model, type(pruner).__name__)
        self.after_cut = RotaryAndMask(self.decoder, positions)
        self.images, self.call = ImageInfo(), ModelCall()
        self.last_ids: Tensor | None = None
        self.last_position: Tensor | int = 0
        self.prompt: Prompt | None = None
        self.cuts: list[Cut] = []
        self.pools: list[Pool] = []
        self.nominal: list[int] = []
        self.sizes: list[list[int]] = []

    @classmethod
    def of(
        cls: type[H],
        model: Any,
        pruner: Pruner,
        keep: float | Mapping[str, float] | RatioPolicy,
        *,
        positions: str | None = None,
        rounding: str = "nearest",
        budget_axis: str = "final",
        **info: Any,
    ) -> H:
        """Makes the hooks of a `prune` call, whose arguments it takes.

        Raises:
            InputError: options that cannot be right.
        """
        policy = as_policy(keep)
        pruner = checks.validate(
            pruner, policy, model.config, positions=positions, rounding=rounding, budget_axis=budget_axis
        )
        prompts = PromptInfo(**info)
        if pruner.cuts:
            for cameras in prompts.cameras_of_prompts:
                policy.ratios(cameras)
        depth = model.get_decoder().config.num_hidden_layers
        budgets = BudgetRule(policy, rounding, budget_axis, depth)
        return cls(model, pruner, budgets, prompts, positions or pruner.traits.positions)

    def install(self, undo: ExitStack) -> None:
        """Registers the hooks; closing `undo` takes back every one of them."""
        _ACTIVE.add(self.decoder)
        undo.callback(_ACTIVE.discard, self.decoder)

        def hook(module: nn.Module, function: Any) -> None:
            undo.callback(module.register_forward_pre_hook(function, with_kwargs=True).remove)

        for module in dict.fromkeys((self.model, self.model.base_model)):
            hook(module, self._on_model)
        hook(self.decoder, self._on_decoder)
        hook(self.decoder.layers[0], self._on_first_layer)
        for index, layer in enumerate(self.decoder.layers):
            if self.pruner.cuts and index >= self.pruner.cuts[0]:
                hook(layer, partial(self._on_layer, index))
            if index + 1 in self.pruner.cuts:
                hook(layer, partial(self._on_layer_before_cut, index))
        if self.pruner.traits.needs_vision:
            self.watch_vision(undo)
        encoder = self.model.base_model
        if hasattr(encoder, "get_image_features"):
            override_method(undo, encoder, "get_image_features", self._on_image_features)
        if adds_features := decoder_of(self.decoder.config).adds_features:
            override_method(undo, self.decoder, adds_features, self._on_deepstack)

    def watch_vision(self, undo: ExitStack) -> None:
        """Captures what the vision tower attends to, until `undo` closes."""
        self.capture.watch_vision(family_of(self.model.config).feature_layer(self.model), undo)

    # What a forward pass brings

    def _on_image_features(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        self.images = ImageInfo.of_call(given)
        with ExitStack() as undo:
            if self.pruner.traits.resizes_images:
                resize_images(self.model.base_model.vision_tower, self._image_shapes, undo)
            return original(*args, **kwargs)

    def _image_shapes(self, count: int, tokens: int) -> list[tuple[int, int]]:
        """Returns the rows and columns of tokens that each of `count` images shall have instead of `tokens`."""
        shapes = []
        for cameras in self.info.cameras_of_images(count):
            budgets = self.budgets.of_cameras(cameras, dict.fromkeys(cameras, tokens))
            shapes += [self.pruner.image_shape(budgets[camera], tokens) for camera in cameras]
        return shapes

    def _on_model(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given = {**given.pop("kwargs", {}), **given}
        checks.check_call(given, self.pruner)
        self.call = ModelCall.of(given, self.call)

    def _on_decoder(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        cache = cache_of(kwargs)
        mask = kwargs.get("attention_mask")
        checks.check_forward(cache, mask)
        embeds = kwargs.get("inputs_embeds")
        inputs = embeds if embeds is not None else kwargs.get("input_ids", args[0] if args else None)
        if inputs is None:
            raise InputError("the decoder was called without inputs")
        self.step = ForwardPass(0 if cache is None else cache.get_seq_length(), mask, kwargs.get("position_ids"))
        if self.step.is_prefill:
            self._begin(len(inputs), inputs.shape[1], kwargs.get("use_cache") is False)
        else:
            self._continue(inputs.shape[1])
        self.call = ModelCall()

    def _begin(self, rows: int, length: int, recomputes: bool) -> None:
        """Starts with a new batch of prompts: finds its visual tokens and their nominal budgets."""
        ids, mask = self.call.input_ids, self.step.mask
        checks.check_prompt(self.call, self.pruner, self.last_ids if recomputes else None)
        self.last_ids = ids
        mask_BP = None if mask is None or bool(mask.all()) else mask.bool()
        maps = self.info.token_maps(rows, ids, mask_BP, self.model.config, self.images)
        row_ids = self.info.row_ids(rows, ids, mask_BP)
        self.prompt = Prompt.build(maps, length, mask_BP, row_ids, self.info.row_questions(rows))
        self.last_position = self.step.span[1] if self.step.span else length - 1
        self.cuts, self.images = [], ImageInfo()
        self.capture.begin()
        self.pools = self.prompt.pools(self.pruner.scope)
        self.nominal = self.budgets.nominal(self.pools, self.pruner)
        totals = [0] * rows
        for pool, size in zip(self.pools, self.nominal, strict=True):
            totals[pool.row] += size
        self.trace.begin(self.prompt, totals)

    def _continue(self, width: int) -> None:
        """Takes more tokens after a cached prompt."""
        if self.prompt is None:
            raise InputError("the KV cache was filled outside this prune() context: start from the whole prompt")
        is_cut_before_llm = bool(self.cuts) and self.cuts[0].layer == 0
        checks.check_continuation(self.call, self.step, width, self.last_position if is_cut_before_llm else None)

    # What layers get instead

    def _on_first_layer(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.step.is_prefill:
            self.capture.embeddings = args[0]

    def _on_layer_before_cut(self, index: int, module: nn.Module, args: Args, kwargs: dict[str, Any]) -> None:
        if self.step.is_prefill:
            self.capture.layer_before(index, module, args[0], kwargs, self._real(index))

    def _on_layer(
        self, index: int, module: nn.Module, args: Args, kwargs: dict[str, Any]
    ) -> tuple[Args, Kwargs] | None:
        hidden = args[0]
        if self.step.is_prefill and index in self.pruner.cuts:
            hidden = self._make_cut(index, module, hidden, kwargs)
        cut = self._cut_before(index)
        if cut is None:
            return None
        assert self.prompt is not None
        length = self.prompt.length
        rope = self.after_cut.rope_after(cut, self.step, hidden, kwargs["position_embeddings"], length)
        if rope is not None:
            kwargs["position_embeddings"] = rope
        cache = cache_of(kwargs)
        kwargs["attention_mask"] = self.after_cut.mask_after(cut, self.step, hidden, cache, index, length)
        # Ids with gaps would be read as packed sequences by the flash kernels.
        kwargs["position_ids"] = None
        return (hidden, *args[1:]), kwargs

    def _cut_before(self, index: int) -> Cut | None:
        """Returns the last cut at or before a layer."""
        return next((cut for cut in reversed(self.cuts) if cut.layer <= index), None)

    def _real(self, index: int) -> Tensor | None:
        """Returns True at the positions of a layer that are no padding; None where there is no padding."""
        assert self.prompt is not None
        cut = self._cut_before(index)
        if cut is None:
            return self.prompt.mask_BP
        return cut.real_BK if cut.is_ragged else None

    def _make_cut(self, index: int, module: nn.Module, hidden_BPD: Tensor, given: Mapping[str, Any]) -> Tensor:
        """Selects, records the selection in the trace, and returns the states of the kept positions."""
        prompt = self.prompt
        assert prompt is not None
        _synchronize(hidden_BPD)
        start = time.perf_counter()
        pools, stage = self.pools, self.pruner.cuts.index(index)
        if stage == 0:
            self.sizes, flops = self.budgets.allocate(hidden_BPD, pools, self.pruner, self.nominal)
            self.trace.select_flops = flops
        sizes = self.sizes[stage]
        if all(size == len(pool.at_N) for size, pool in zip(sizes, pools, strict=True)):
            self.trace.add_cut(self.pruner, index, pools, [Picks(torch.arange(size)) for size in sizes], 0)
        else:
            before = self._cut_before(index)
            rope = given["position_embeddings"] if before is None else self.step.rotary[before.layer]
            cos, sin = (part.to(hidden_BPD.device) for part in rope)
            view = LayerView(module, hidden_BPD, (cos, sin), self._real(index))
            picks = self.select(hidden_BPD, pools, sizes, self.capture.context(view, prompt, before))
            self.trace.add_cut(self.pruner, index, pools, picks, hidden_BPD.shape[-1])
            kept_BK, real_BK = pad_left(kept_positions(hidden_BPD.shape[:2], view.mask_BP, pools, picks))
            cut = Cut.at(index, kept_BK, real_BK, hidden_BPD.device)
            hidden_BPD = gather(hidden_BPD, cut.kept_BK)
            merges = self.pruner.traits.merges_tokens
            if merges or index < self.pruner.cuts[-1]:
                self.pools = remaining_pools(pools, picks, cut)
            cut = cut.within(before)
            if merges:
                hidden_BPD, cut = write_merged(hidden_BPD, cut, self.pools, picks)
            self.cuts.append(cut)
        self.trace.positions = kept_prompt_positions(prompt, self.cuts[-1] if self.cuts else None)
        _synchronize(hidden_BPD)
        self.trace.select_seconds += time.perf_counter() - start
        self.capture.before = None
        return hidden_BPD

    def select(self, hidden_BPD: Tensor, pools: Sequence[Pool], sizes: Sequence[int], context: Context) -> list[Picks]:
        """Returns what each pool keeps."""
        return select_tokens(self.pruner, hidden_BPD, pools, sizes, context)

    def _on_deepstack(self, original: Any, hidden: Tensor, visual_BP: Tensor, embeds_VD: Tensor) -> Tensor:
        """Adds vision features to early layers at the kept visual positions, for families whose decoder adds them."""
        kept = self.cuts[-1].deepstack(visual_BP, embeds_VD) if self.cuts else (visual_BP, embeds_VD)
        states: Tensor = original(hidden, *kept)
        return states


def _synchronize(states: Tensor) -> None:
    if states.is_cuda:
        torch.cuda.synchronize(states.device)
