"""Pruning inside a stock Hugging Face model, by forward pre-hooks: the only model surgery there is.

At the input of layer k the hidden states are gathered at the kept positions; every later layer gets
rotary embeddings and a mask of the kept length. A method may cut several times: each cut is made among what
the one before left. The KV cache is left alone: layers below k hold the whole prompt, the others the kept one.
`generate` goes on counting positions at full length.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, A axes of rotary positions.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask

from prune2drive.errors import InputError
from prune2drive.pruning import guards
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.base import Context, Pool, Pruner
from prune2drive.pruning.cut import Call, Cut, Forward, gather
from prune2drive.pruning.plan import Picks, Trace, choose, kept_positions, left, merged, record, stage_sizes
from prune2drive.pruning.prompt import Naming, Prompt
from prune2drive.pruning.ratios import RatioPolicy, as_policy
from prune2drive.sample import TokenMap
from prune2drive.visual_tokens import ImageInfo

_ACTIVE: WeakSet[nn.Module] = WeakSet()
_IMAGE_ARGUMENTS = ("batch_num_images", "image_sizes", "image_grid_thw")


@contextmanager
def prune(
    model: Any,
    pruner: Pruner,
    keep: float | Mapping[str, float] | RatioPolicy,
    *,
    cameras: Sequence[str] | Sequence[Sequence[str]] | None = None,
    token_map: TokenMap | Sequence[TokenMap] | None = None,
    positions: str = "keep",
    rounding: str = "nearest",
    sample_ids: Sequence[str] | None = None,
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
        positions: `keep` leaves tokens their original position ids, `renumber` closes the gaps.
        rounding: of budgets; `nearest`, or `seed` for parity with the original implementation.
        sample_ids: names of the prompts for methods that draw at random; by default each prompt's
            text decides, so that its place in a batch does not matter.

    Yields:
        The trace of what was kept, rewritten by every prompt.

    Raises:
        InputError: options that cannot be right, here or, as they show, in the model's forward.
    """
    engine = _Engine(model, pruner, as_policy(keep), Naming(cameras, token_map, sample_ids), positions, rounding)
    with ExitStack() as undo:
        engine.install(undo)
        yield engine.trace


class _Engine:
    """The state behind one `prune` context, and its hooks."""

    def __init__(
        self, model: Any, pruner: Pruner, policy: RatioPolicy, naming: Naming, positions: str, rounding: str
    ) -> None:
        self.model, self.policy, self.naming = model, policy, naming
        self.positions, self.rounding = positions, rounding
        self.decoder = model.get_decoder()
        self.config = self.decoder.config
        self.trace = Trace()
        self.images = ImageInfo()
        self.call = Call()
        self.last_ids: Tensor | None = None
        self.last_position: Tensor | int = 0
        self.prompt: Prompt | None = None
        self.cuts: list[Cut] = []
        self.pools: list[Pool] = []
        self.embeddings: Tensor | None = None
        self.before: LayerView | None = None
        guards.check_options(self.positions, self.rounding)
        guards.check_decoder(self.decoder, pruner)
        self.pruner = pruner.fit(len(self.decoder.layers))
        if self.decoder in _ACTIVE:
            raise InputError("this model is already inside a prune() context: leave it before entering another")
        if pruner.drops:
            for names in naming.camera_names(rows=len(naming.cameras or ())) or ():
                policy.ratios(names)

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
            if index + 1 in cuts:
                hook(self.decoder.layers[index], partial(self._on_layer_before, index))
        encoder = self.model.base_model
        if hasattr(encoder, "get_image_features"):
            _shadow(undo, encoder, "get_image_features", self._on_image_features)
        if hasattr(self.decoder, "_deepstack_process"):
            _shadow(undo, self.decoder, "_deepstack_process", self._on_deepstack)

    # What a forward pass brings

    def _on_image_features(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        self.images = ImageInfo(*(_as_list(given.get(name)) for name in _IMAGE_ARGUMENTS))
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
        self.prompt = Prompt.build(maps, length, mask_BP, self.naming.ids(rows, ids, mask_BP))
        self.last_position = self.step.span[1] if self.step.span else length - 1
        self.cuts, self.pools = [], self.prompt.pools(self.pruner.scope)
        self.embeddings = self.before = None
        self.images = ImageInfo()
        self.trace.clear()

    def _continue(self, width: int) -> None:
        """More tokens behind a cached prompt."""
        if self.prompt is None:
            raise InputError("the KV cache was filled outside this prune() context: start from the whole prompt")
        is_cut_before_llm = bool(self.cuts) and self.cuts[0].layer == 0
        guards.check_continuation(self.call, self.step, width, self.last_position if is_cut_before_llm else None)

    # What layers get instead

    def _on_first_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.step.is_prefill:
            self.embeddings = args[0]

    def _on_layer_before(self, index: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Remembers what enters the layer before a cut, for methods that look at it."""
        if not self.step.is_prefill:
            return
        cache = kwargs.get("past_key_values")

        def keys() -> Tensor | None:
            return None if cache is None else cache.layers[index].keys

        self.before = LayerView(module, args[0], kwargs["position_embeddings"], self._real(index), keys)

    def _on_layer(self, index: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        hidden = args[0]
        is_new = self.step.is_prefill and index in self.pruner.cuts
        if is_new:
            hidden = self._cut(index, module, hidden, kwargs["position_embeddings"])
        cut = self._cut_of(index)
        if cut is None:
            return None
        rotary = self.step.rotary
        if self.step.is_prefill and cut.layer not in rotary:
            rotary[cut.layer] = self._prefill_rotary(hidden, cut, kwargs["position_embeddings"])
        elif self.positions == "renumber" and cut.layer not in rotary:
            ids_ABP = self._rotary_ids(*hidden.shape[:2]) - cut.shift_B[:, None]
            rotary[cut.layer] = self._rotary_of(hidden, ids_ABP)
        if cut.layer in rotary:
            kwargs["position_embeddings"] = tuple(part.to(hidden.device) for part in rotary[cut.layer])
        kwargs["attention_mask"] = self._layer_mask(index, cut, hidden, kwargs.get("past_key_values"))
        # Ids with gaps would be read as packed sequences by the flash kernels.
        kwargs["position_ids"] = None
        return (hidden, *args[1:]), kwargs

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

    def _cut(self, index: int, module: nn.Module, hidden_BPD: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Lets the method choose, records it, and returns the states of what is left."""
        prompt = self.prompt
        assert prompt is not None
        _synchronize(hidden_BPD)
        start = time.perf_counter()
        pools, stage = self.pools, self.pruner.cuts.index(index)
        sizes = stage_sizes(pools, self.pruner, self.policy, self.rounding, stage)
        if all(size == len(pool.at_N) for size, pool in zip(sizes, pools, strict=True)):
            record(self.trace, self.pruner, index, prompt, pools, [Picks(torch.arange(size)) for size in sizes], 0)
        else:
            view = LayerView(module, hidden_BPD, self._rotary_at(index, rotary, len(hidden_BPD)), self._real(index))
            picks = choose(self.pruner, hidden_BPD, pools, sizes, self._context(index, view))
            record(self.trace, self.pruner, index, prompt, pools, picks, hidden_BPD.shape[-1])
            hidden_BPD = self._apply(index, hidden_BPD, picks)
        self.trace.positions = self._kept_positions()
        _synchronize(hidden_BPD)
        self.trace.select_seconds += time.perf_counter() - start
        self.before = None
        return hidden_BPD

    def _apply(self, index: int, hidden_BPD: Tensor, picks: list[Picks]) -> Tensor:
        """Makes the cut: keeps its positions and puts merged rows into them."""
        before = self._cut_of(index)
        real_BP = self._real(index)
        if real_BP is None:
            real_BP = torch.ones(hidden_BPD.shape[:2], dtype=torch.bool)
        kept = kept_positions(real_BP, self.pools, picks)
        cut = Cut.at(kept, hidden_BPD.device, index)
        hidden_BPD = gather(hidden_BPD, cut.kept_BK)
        self.pools = left(self.pools, picks, kept)
        cut = cut.within(before)
        if self.pruner.merges:
            hidden_BPD, cut = merged(hidden_BPD, cut, self.pools, picks)
        self.cuts.append(cut)
        return hidden_BPD

    def _context(self, index: int, view: LayerView) -> Context:
        assert self.prompt is not None and self.embeddings is not None
        question_BP = self.prompt.question().to(view.hidden_BPD.device)
        embeddings_BPD, cut = self.embeddings, self._cut_of(index)
        if cut is not None:
            question_BP = question_BP.gather(1, cut.kept_BK) & cut.real_BK
            embeddings_BPD = gather(embeddings_BPD, cut.kept_BK)
        return Context((), self.before, view, embeddings_BPD, self.embeddings, self.decoder.norm, question_BP)

    def _rotary_at(self, index: int, full: tuple[Tensor, Tensor], rows: int) -> tuple[Tensor, Tensor]:
        """The rotary embeddings of what enters a layer before it is cut."""
        cut = self._cut_of(index)
        return full if cut is None else self.step.rotary[cut.layer]

    def _kept_positions(self) -> list[Tensor]:
        """What is left of each row's own prompt, ascending."""
        prompt = self.prompt
        assert prompt is not None
        if self.cuts:
            cut = self.cuts[-1]
            kept = [kept_K[real_K].cpu() for kept_K, real_K in zip(cut.kept_BK, cut.real_BK, strict=True)]
        else:
            real_BP = torch.ones(len(prompt.maps), prompt.length, dtype=torch.bool)
            mask_BP = real_BP if prompt.mask_BP is None else prompt.mask_BP.cpu()
            kept = [mask_P.nonzero().flatten() for mask_P in mask_BP]
        paddings = [0] * len(kept) if prompt.mask_BP is None else prompt.mask_BP.int().argmax(dim=1).tolist()
        return [at - padding for at, padding in zip(kept, paddings, strict=True)]

    def _prefill_rotary(self, hidden: Tensor, cut: Cut, embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Of the kept positions, from those of the whole prompt."""
        assert self.prompt is not None
        if self.positions == "keep":
            cos, sin = (gather(part.expand(len(hidden), -1, -1), cut.kept_BK) for part in embeddings)
            return cos, sin
        ids_ABP = self._rotary_ids(len(hidden), self.prompt.length)
        return self._rotary_of(hidden, cut.renumber(ids_ABP))

    def _rotary_ids(self, rows: int, width: int) -> Tensor:
        """Original position ids [A, B, width]: one axis, or three for multimodal rotary embeddings."""
        ids = self.step.position_ids
        if ids is None:
            ids = self.step.past + torch.arange(width, device=self.model.device)[None]
        ids = ids[None] if ids.ndim == 2 else ids[-3:]
        axes = 3 if "mrope_section" in (getattr(self.config, "rope_parameters", None) or {}) else 1
        return ids.expand(axes, rows, -1)

    def _rotary_of(self, hidden: Tensor, ids_ABP: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder.rotary_emb(hidden, ids_ABP if len(ids_ABP) > 1 else ids_ABP[0])

    def _layer_mask(self, index: int, cut: Cut, hidden: Tensor, cache: Any) -> Any:
        """The mask of the layers behind a cut, built once a forward pass."""
        assert self.prompt is not None
        masks = self.step.layer_mask
        if cut.layer not in masks:
            past = 0 if self.step.is_prefill else cache.get_seq_length(index)
            behind = past + hidden.shape[1] - cut.length
            padding = cut.mask_2d(self.step.mask, self.prompt.length, behind, len(hidden))
            mask: Any = create_causal_mask(self.config, hidden, padding, cache, position_ids=None, layer_idx=index)
            if cut.log_sizes_BK is not None:
                mask = cut.weigh(mask, hidden.shape[1], behind, hidden.dtype)
            masks[cut.layer] = mask
        mask = masks[cut.layer]
        return mask.to(hidden.device) if isinstance(mask, Tensor) else mask

    def _on_deepstack(self, original: Any, hidden: Tensor, visual_BP: Tensor, embeds_VD: Tensor) -> Tensor:
        """Qwen3-VL adds vision features to early layers at all visual positions: only kept ones are left."""
        if not self.cuts:
            return original(hidden, visual_BP, embeds_VD)
        cut = self.cuts[-1]
        kept_BK, real_BK = cut.kept_BK.to(visual_BP.device), cut.real_BK.to(visual_BP.device)
        rank_BP = (visual_BP.flatten().cumsum(0) - 1).view_as(visual_BP)
        visual_BK = visual_BP.gather(1, kept_BK) & real_BK
        return original(hidden, visual_BK, embeds_VD[rank_BP.gather(1, kept_BK)[visual_BK].to(embeds_VD.device)])


def _shadow(undo: ExitStack, module: nn.Module, name: str, function: Any) -> None:
    """Replaces a method on this instance only."""
    original = getattr(module, name)
    module.__dict__[name] = wraps(original)(partial(function, original))
    undo.callback(module.__dict__.pop, name)


def _as_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _synchronize(states: Tensor) -> None:
    if states.is_cuda:
        torch.cuda.synchronize(states.device)
