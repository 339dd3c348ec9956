"""The prefix cache: what no keep ratio changes is computed once, vision and the decoder layers before the first cut.

Shape suffixes: B batch rows, P prompt positions (padded), D channels, G key-value heads, E their width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.families import decoder_of
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.reuse.prefix_store import PrefixStore, Tensors
from prune2drive.pruning.surgery.patch import Args, Kwargs, override_method
from prune2drive.token_map import TokenMap


def untouched_layers(pruner: Pruner) -> int:
    """Returns how many first layers neither the method nor its ratios touch, for which cached states can stand in."""
    return max(pruner.cuts[0] - pruner.traits.needs_attention, 0) if pruner.cuts else 0


def check_reuse(config: Any, pruner: Pruner) -> None:
    """Checks that a method reads nothing that a cached prefix leaves out.

    Raises:
        InputError: a method that reads the vision tower, or a model that adds vision features at later layers.
    """
    if pruner.traits.needs_vision:
        raise InputError(
            f"prefix_cache: {type(pruner).__name__} looks into the vision tower, which a kept prefix leaves out; "
            "set prefix_cache=none"
        )
    if decoder_of(config).adds_features:
        raise InputError(
            f"prefix_cache: {config.model_type} adds vision features behind its first layers, which a kept prefix "
            "leaves out; set prefix_cache=none"
        )


@dataclass(frozen=True)
class CacheEntry:
    """The keys under which the states of one prompt are cached.

    Args:
        frame: key of the positions up to the last visual token, which all questions about a frame share.
        question: key of the positions after them.
        length: positions of the prompt, without padding.
        split: positions up to the last visual token.
        answer: key of the beginning of an answer after the prompt.
        answer_length: positions of that beginning; 0 without one.
    """

    frame: str
    question: str
    length: int
    split: int
    answer: str = ""
    answer_length: int = 0

    @classmethod
    def of(cls, about: str, frame: str, sample_id: str, ids_P: Tensor, token_map: TokenMap) -> CacheEntry:
        """Makes the keys of a prompt.

        Args:
            about: what all prompts have in common: model, dataset, number of layers left out.
            frame: name of the images; prompts with the same name show the same.
            sample_id: id of the question.
            ids_P: token ids of the prompt, without padding.
            token_map: where its visual tokens lie.
        """
        split = int((token_map.view_P >= 0).nonzero().max()) + 1
        return cls(_key(about, frame, ids_P[:split]), _key(about, sample_id, ids_P), len(ids_P), split)

    def followed_by(self, ids: Sequence[int]) -> CacheEntry:
        """Returns the keys of the same prompt with the beginning of an answer after it."""
        return (
            replace(self, answer=_key(self.question, "answer", torch.tensor(ids)), answer_length=len(ids))
            if ids
            else self
        )

    @property
    def parts(self) -> list[tuple[str, int]]:
        """Each key with the number of positions it stands for, in their order."""
        parts = [(self.frame, self.split), (self.question, self.length - self.split), (self.answer, self.answer_length)]
        return parts if self.answer_length else parts[:2]

    def is_in(self, store: PrefixStore) -> bool:
        return all(store.get(key) is not None for key, _ in self.parts)


def _key(about: str, name: str, ids: Tensor) -> str:
    return hashlib.blake2b(f"{about}/{name}/".encode() + ids.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def fingerprint(model: nn.Module, samples: int = 16) -> str:
    """Returns a hash of some values of every weight, which tells models apart."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weights in model.named_parameters():
        digest.update(f"{name}{tuple(weights.shape)}{weights.dtype}".encode())
        if not weights.is_meta:
            some = weights.detach().flatten()[:: max(1, weights.numel() // samples)]
            digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def reuse(
    model: Any, layers: int, store: PrefixStore, rows: Sequence[CacheEntry], prefill_only: bool = False
) -> Iterator[PrefixReplay]:
    """Lets prompts enter the decoder, inside this context, at a layer that no keep ratio has touched yet.

    With all prompts in the store the batch must be given without its images; the states that enter the decoder and
    layer `layers`, and the KV cache of the layers before, come from the store. Otherwise the batch runs as usual and
    its states are stored. Decoding after the prompt is not changed. Combine it with `prune`:

        with reuse(model, layers, store, rows) as replay, prune(model, pruner, keep):
            model.generate(**(inputs_without_images if replay.is_known else inputs))

    Args:
        model: a supported vision-language model.
        layers: number of first decoder layers to leave out: `untouched_layers` of the method.
        store: the states of this model and these images.
        rows: the keys of each prompt of the batch.
        prefill_only: whether only the states that enter layer `layers` are wanted, since nothing is generated after
            the prompts and no method reads what enters the decoder.

    Yields:
        The replay, which knows whether all prompts are in the store, and stores answers.

    Raises:
        InputError: a batch of other prompts.
    """
    replay = PrefixReplay(model.get_decoder(), layers, store, rows, prefill_only)
    with ExitStack() as undo:
        replay.install(undo)
        yield replay


class PrefixReplay:
    """The state behind one `reuse` context, and its hooks, which record a batch's states or restore them.

    Attributes:
        is_known: whether all prompts of the batch are in the store.
    """

    def __init__(
        self, decoder: Any, layers: int, store: PrefixStore, rows: Sequence[CacheEntry], prefill_only: bool = False
    ) -> None:
        self.decoder, self.layers, self.store, self.rows, self.prefill_only = decoder, layers, store, rows, prefill_only
        self.is_known = all(row.is_in(store) for row in rows)
        self.is_prefill = False
        self.recorded: dict[str, Tensor] = {}
        self.answer_states: list[Tensor] = []
        self.length = 0

    def install(self, undo: ExitStack) -> None:
        undo.callback(self.decoder.register_forward_pre_hook(self._on_decoder, with_kwargs=True).remove)
        for index, layer in enumerate(self.decoder.layers[: self.layers]):
            override_method(undo, layer, "forward", partial(self._on_layer, index))

    def _on_decoder(self, module: nn.Module, args: Args, kwargs: dict[str, Any]) -> tuple[Args, Kwargs] | None:
        cache, embeds_BPD = kwargs.get("past_key_values"), kwargs.get("inputs_embeds")
        self.is_prefill = cache is not None and cache.get_seq_length() == 0
        if not self.is_prefill:
            if self.layers == 0 and embeds_BPD is not None:
                self.answer_states.append(embeds_BPD)
            return None
        self.answer_states = []
        longest = max(row.length + row.answer_length for row in self.rows)
        if embeds_BPD is None or len(embeds_BPD) % len(self.rows) or embeds_BPD.shape[1] < longest:
            raise InputError(f"prefix_cache: the decoder was not given the embeddings of {len(self.rows)} prompts")
        self.length = embeds_BPD.shape[1]
        if not self.is_known:
            self._record("embeds", embeds_BPD)
            return None
        if self.layers == 0 or not self.prefill_only:
            kwargs["inputs_embeds"] = self._restore("embeds", embeds_BPD)
        return args, kwargs

    def _on_layer(self, index: int, original: Callable[..., Any], hidden_BPD: Tensor, *args: Any, **kwargs: Any) -> Any:
        cache, is_last = kwargs["past_key_values"], index == self.layers - 1
        if self.is_prefill and self.is_known:
            if not self.prefill_only:
                cache.update(*(self._restore(f"{part}.{index}", hidden_BPD) for part in ("keys", "values")), index)
            return self._restore("hidden", hidden_BPD) if is_last else hidden_BPD
        output = original(hidden_BPD, *args, **kwargs)
        if not self.is_prefill:
            if is_last:
                self.answer_states.append(output)
            return output
        self._record(f"keys.{index}", cache.layers[index].keys)
        self._record(f"values.{index}", cache.layers[index].values)
        if is_last:
            self._record("hidden", output)
        return output

    def _record(self, name: str, states: Tensor) -> None:
        """Records states of the batch, and stores them once all are there."""
        self.recorded[name] = states
        if len(self.recorded) == 1 + (2 * self.layers + 1 if self.layers else 0):
            for place, row in enumerate(self.rows):
                self._store(place * len(states) // len(self.rows), row)
            self.recorded = {}

    def _store(self, at: int, row: CacheEntry) -> None:
        """Stores the states of one prompt; positions are on the last axis but one."""
        start = self.length - row.length

        def part(first: int, stop: int) -> Tensors:
            cut = {name: states[at, ..., first:stop, :].detach() for name, states in self.recorded.items()}
            return {name: states.to("cpu", copy=True).contiguous() for name, states in cut.items()}

        if self.store.get(row.frame) is None and not self.store.put(row.frame, part(start, start + row.split)):
            return
        self.store.put(row.question, part(start + row.split, self.length))

    def keep_answers(self, answers: Sequence[Sequence[int]]) -> None:
        """Stores the states of generated answers, one to each prompt, the last token included."""
        if not self.answer_states or len(self.answer_states[0]) != len(self.rows):
            return
        name, states_BTD = "hidden" if self.layers else "embeds", torch.cat(self.answer_states, dim=1)
        for row, ids, states_TD in zip(self.rows, answers, states_BTD, strict=True):
            longer = row.followed_by(ids[:-1])
            if longer.answer_length:
                self.store.put(longer.answer, {name: states_TD[: longer.answer_length].to("cpu", copy=True)})

    def _restore(self, name: str, like_BPD: Tensor) -> Tensor:
        """Restores states of the batch, 0 at its padding; each prompt as often as beams repeat it."""
        first = self._stored(self.rows[0].frame)[name]
        batch = first.new_zeros(len(self.rows), *first.shape[:-2], self.length, first.shape[-1])
        for states, row in zip(batch, self.rows, strict=True):
            start = self.length - row.length - row.answer_length
            for key, length in row.parts:
                states[..., start : start + length, :] = self._stored(key)[name]
                start += length
        batch = batch.to(like_BPD.device)
        beams = len(like_BPD) // len(self.rows)
        return batch if beams == 1 else batch.repeat_interleave(beams, dim=0)

    def _stored(self, key: str) -> Tensors:
        tensors = self.store.get(key)
        assert tensors is not None
        return tensors
