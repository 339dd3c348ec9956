"""Pruning inside a stock Hugging Face model, by forward pre-hooks: the only model surgery there is.

At the input of layer k the hidden states are gathered at the kept positions; every later layer gets
rotary embeddings and a mask of the kept length. The KV cache is left alone: layers below k hold the
whole prompt, the others the kept one. `generate` goes on counting positions at full length.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, A axes of rotary positions.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask

from prune2drive.errors import InputError
from prune2drive.pruning import guards
from prune2drive.pruning.attention import last_row_attention
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.cut import Call, Cut, Forward, gather
from prune2drive.pruning.plan import Trace, budgets, choose, kept_positions, record
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
        self.model, self.pruner, self.policy, self.naming = model, pruner, policy, naming
        self.positions, self.rounding = positions, rounding
        self.decoder = model.get_decoder()
        self.config = self.decoder.config
        self.trace = Trace()
        self.images = ImageInfo()
        self.call = Call()
        self.last_ids: Tensor | None = None
        self.last_position: Tensor | int = 0
        self.prompt: Prompt | None = None
        self.cut: Cut | None = None
        self.attention: Callable[[], Tensor] = _no_attention
        guards.check_options(self.positions, self.rounding)
        guards.check_decoder(self.decoder, pruner)
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
        first = self.pruner.layer
        if self.pruner.needs_attention:
            hook(self.decoder.layers[first - 1], self._on_scored_layer)
        for index in range(first, len(self.decoder.layers)):
            hook(self.decoder.layers[index], partial(self._on_layer, index))
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
        self.cut = None
        self.images = ImageInfo()

    def _continue(self, width: int) -> None:
        """More tokens behind a cached prompt."""
        if self.prompt is None:
            raise InputError("the KV cache was filled outside this prune() context: start from the whole prompt")
        is_cut_before_llm = self.cut is not None and self.pruner.layer == 0
        guards.check_continuation(self.call, self.step, width, self.last_position if is_cut_before_llm else None)

    # What layers get instead

    def _on_scored_layer(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.step.is_prefill and self.prompt is not None:
            cache, index, mask_BP = kwargs.get("past_key_values"), self.pruner.layer - 1, self.prompt.mask_BP

            def attention() -> Tensor:
                keys = None if cache is None else cache.layers[index].keys
                return last_row_attention(module, args[0], kwargs["position_embeddings"], mask_BP, keys)

            self.attention = attention

    def _on_layer(self, index: int, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        hidden = args[0]
        at_cut = self.step.is_prefill and index == self.pruner.layer
        if at_cut:
            self.cut = self._choose(hidden)
        if self.cut is None:
            return None
        if self.step.is_prefill:
            embeddings = kwargs["position_embeddings"]
            if self.step.rotary is None:
                self.step.rotary = self._prefill_rotary(hidden, embeddings)
            hidden = gather(hidden, self.cut.kept_BK) if at_cut else hidden
        elif self.positions == "renumber" and self.step.rotary is None:
            ids_ABP = self._rotary_ids(*hidden.shape[:2]) - self.cut.shift_B[:, None]
            self.step.rotary = self._rotary_of(hidden, ids_ABP)
        if self.step.rotary is not None:
            kwargs["position_embeddings"] = tuple(part.to(hidden.device) for part in self.step.rotary)
        kwargs["attention_mask"] = self._layer_mask(index, hidden, kwargs.get("past_key_values"))
        # Ids with gaps would be read as packed sequences by the flash kernels.
        kwargs["position_ids"] = None
        return (hidden, *args[1:]), kwargs

    def _choose(self, hidden_BPD: Tensor) -> Cut | None:
        """Lets the method choose and records it; None where everything is kept."""
        prompt = self.prompt
        assert prompt is not None
        _synchronize(hidden_BPD)
        start = time.perf_counter()
        pools = prompt.pools(self.pruner.scope)
        sizes = budgets(pools, self.pruner, self.policy, self.rounding)
        everything = all(size == len(pool.at_N) for size, pool in zip(sizes, pools, strict=True))
        if everything:
            picks = [torch.arange(size) for size in sizes]
        else:
            picks = choose(self.pruner, hidden_BPD, pools, sizes, self.attention)
        record(self.trace, self.pruner, prompt, pools, picks, hidden_BPD.shape[-1])
        cut = None if everything else Cut.at(kept_positions(prompt, pools, picks), hidden_BPD.device)
        _synchronize(hidden_BPD)
        self.trace.select_seconds = time.perf_counter() - start
        self.attention = _no_attention
        return cut

    def _prefill_rotary(self, hidden: Tensor, embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        cut = self.cut
        assert cut is not None and self.prompt is not None
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

    def _layer_mask(self, index: int, hidden: Tensor, cache: Any) -> Any:
        """The mask of layers from k on, built once a forward pass."""
        assert self.cut is not None and self.prompt is not None
        if not self.step.layer_mask:
            behind = 0 if self.step.is_prefill else cache.get_seq_length(index) + hidden.shape[1] - self.cut.length
            mask = self.cut.mask_2d(self.step.mask, self.prompt.length, behind, len(hidden))
            self.step.layer_mask.append(
                create_causal_mask(self.config, hidden, mask, cache, position_ids=None, layer_idx=index)
            )
        mask = self.step.layer_mask[0]
        return mask.to(hidden.device) if isinstance(mask, Tensor) else mask

    def _on_deepstack(self, original: Any, hidden: Tensor, visual_BP: Tensor, embeds_VD: Tensor) -> Tensor:
        """Qwen3-VL adds vision features to early layers at all visual positions: only kept ones are left."""
        if self.cut is None:
            return original(hidden, visual_BP, embeds_VD)
        kept_BK, real_BK = self.cut.kept_BK.to(visual_BP.device), self.cut.real_BK.to(visual_BP.device)
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


def _no_attention() -> Tensor:
    raise InputError("this method reads attention: declare `needs_attention = True` in its class")


def _synchronize(states: Tensor) -> None:
    if states.is_cuda:
        torch.cuda.synchronize(states.device)
