"""What no keep ratio changes is computed once: vision, and the decoder layers before the first cut.

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
from prune2drive.pruning.surgery.patch import shadow
from prune2drive.token_map import TokenMap


def untouched_layers(pruner: Pruner) -> int:
    """How many of the first layers neither the method nor its ratios touch: those that a prefix can stand for."""
    return max(pruner.cuts[0] - pruner.needs_attention, 0) if pruner.drops else 0


def check_reuse(config: Any, pruner: Pruner) -> None:
    """A method that looks at what is not computed again, or a model that brings it to later layers.

    Raises:
        InputError: either of them.
    """
    if pruner.needs_vision:
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
class Row:
    """Where the states of one prompt are kept.

    Args:
        frame: key of the part up to the last visual token, which all questions about a frame share.
        question: key of the rest.
        length: positions of the prompt, without padding.
        split: positions of the first part.
        answer: key of the beginning of an answer behind the prompt.
        said: positions of that.
    """

    frame: str
    question: str
    length: int
    split: int
    answer: str = ""
    said: int = 0

    @classmethod
    def of(cls, about: str, frame: str, sample_id: str, ids_P: Tensor, token_map: TokenMap) -> Row:
        """The row of a prompt without padding.

        Args:
            about: what all prompts have in common: model, dataset, how many layers are left out.
            frame: prompts with the same one show the same images.
        """
        split = int((token_map.view_P >= 0).nonzero().max()) + 1
        return cls(_key(about, frame, ids_P[:split]), _key(about, sample_id, ids_P), len(ids_P), split)

    def followed_by(self, ids: Sequence[int]) -> Row:
        """The same prompt with the beginning of an answer behind it."""
        return replace(self, answer=_key(self.question, "answer", torch.tensor(ids)), said=len(ids)) if ids else self

    @property
    def parts(self) -> list[tuple[str, int]]:
        """Keys, and how many positions each stands for, one part behind the other."""
        parts = [(self.frame, self.split), (self.question, self.length - self.split), (self.answer, self.said)]
        return parts if self.said else parts[:2]

    def is_in(self, store: PrefixStore) -> bool:
        return all(store.get(key) is not None for key, _ in self.parts)


def _key(about: str, name: str, ids: Tensor) -> str:
    return hashlib.blake2b(f"{about}/{name}/".encode() + ids.cpu().numpy().tobytes(), digest_size=16).hexdigest()


def fingerprint(model: nn.Module, samples: int = 16) -> str:
    """Identifies weights by some values of each."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weights in model.named_parameters():
        digest.update(f"{name}{tuple(weights.shape)}{weights.dtype}".encode())
        if not weights.is_meta:
            some = weights.detach().flatten()[:: max(1, weights.numel() // samples)]
            digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def reuse(model: Any, layers: int, store: PrefixStore, rows: Sequence[Row], is_final: bool = False) -> Iterator[Replay]:
    """Inside this context prompts enter the decoder at a layer that no ratio has touched yet.

    With all rows in the store the prompt must be given without its images; the states that enter the decoder and
    layer `layers`, and the KV cache of the layers before, come from the store. Otherwise the prompt runs as
    usual and its states are stored. What generation does behind the prompt is not changed. To be combined with
    `prune`:

        with reuse(model, layers, store, rows) as replay, prune(model, pruner, keep):
            model.generate(**(inputs_without_images if replay.is_known else inputs))

    Args:
        model: a supported vision-language model.
        layers: how many of its decoder's first layers to leave out: `untouched_layers` of the method.
        store: of this model and these images.
        rows: one a prompt of the batch.
        is_final: nothing is generated behind the prompts, and no method looks at what enters the decoder: only the
            states that enter layer `layers` are wanted.

    Yields:
        What knows whether all rows are in the store, and stores answers.

    Raises:
        InputError: a batch of other prompts.
    """
    replay = Replay(model.get_decoder(), layers, store, rows, is_final)
    with ExitStack() as undo:
        replay.install(undo)
        yield replay


class Replay:
    """The state behind one `reuse` context, and its hooks; see there.

    Attributes:
        is_known: whether all rows are in the store.
    """

    def __init__(
        self, decoder: Any, layers: int, store: PrefixStore, rows: Sequence[Row], is_final: bool = False
    ) -> None:
        self.decoder, self.layers, self.store, self.rows, self.is_final = decoder, layers, store, rows, is_final
        self.is_known = all(row.is_in(store) for row in rows)
        self.is_prefill = False
        self.seen: dict[str, Tensor] = {}
        self.said: list[Tensor] = []
        self.length = 0

    def install(self, undo: ExitStack) -> None:
        undo.callback(self.decoder.register_forward_pre_hook(self._on_decoder, with_kwargs=True).remove)
        for index, layer in enumerate(self.decoder.layers[: self.layers]):
            shadow(undo, layer, "forward", partial(self._on_layer, index))

    def _on_decoder(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        cache, embeds_BPD = kwargs.get("past_key_values"), kwargs.get("inputs_embeds")
        self.is_prefill = cache is not None and cache.get_seq_length() == 0
        if not self.is_prefill:
            if self.layers == 0 and embeds_BPD is not None:
                self.said.append(embeds_BPD)
            return None
        self.said = []
        longest = max(row.length + row.said for row in self.rows)
        if embeds_BPD is None or len(embeds_BPD) % len(self.rows) or embeds_BPD.shape[1] < longest:
            raise InputError(f"prefix_cache: the decoder was not given the embeddings of {len(self.rows)} prompts")
        self.length = embeds_BPD.shape[1]
        if not self.is_known:
            self._see("embeds", embeds_BPD)
            return None
        if self.layers == 0 or not self.is_final:
            kwargs["inputs_embeds"] = self._recall("embeds", embeds_BPD)
        return args, kwargs

    def _on_layer(self, index: int, original: Callable[..., Any], hidden_BPD: Tensor, *args: Any, **kwargs: Any) -> Any:
        cache, is_last = kwargs["past_key_values"], index == self.layers - 1
        if self.is_prefill and self.is_known:
            if not self.is_final:
                cache.update(*(self._recall(f"{part}.{index}", hidden_BPD) for part in ("keys", "values")), index)
            return self._recall("hidden", hidden_BPD) if is_last else hidden_BPD
        output = original(hidden_BPD, *args, **kwargs)
        if not self.is_prefill:
            if is_last:
                self.said.append(output)
            return output
        self._see(f"keys.{index}", cache.layers[index].keys)
        self._see(f"values.{index}", cache.layers[index].values)
        if is_last:
            self._see("hidden", output)
        return output

    def _see(self, name: str, states: Tensor) -> None:
        """Notes states of the batch, and stores them once all are there."""
        self.seen[name] = states
        if len(self.seen) == 1 + (2 * self.layers + 1 if self.layers else 0):
            for place, row in enumerate(self.rows):
                self._store(place * len(states) // len(self.rows), row)
            self.seen = {}

    def _store(self, at: int, row: Row) -> None:
        """Stores one row's states: positions are on the last axis but one."""
        start = self.length - row.length

        def part(first: int, stop: int) -> Tensors:
            cut = {name: states[at, ..., first:stop, :].detach() for name, states in self.seen.items()}
            return {name: states.to("cpu", copy=True).contiguous() for name, states in cut.items()}

        if self.store.get(row.frame) is None and not self.store.put(row.frame, part(start, start + row.split)):
            return
        self.store.put(row.question, part(start + row.split, self.length))

    def keep_answers(self, answers: Sequence[Sequence[int]]) -> None:
        """Stores the states of what was generated: an answer to each prompt, its last token included."""
        if not self.said or len(self.said[0]) != len(self.rows):
            return
        name, states_BTD = "hidden" if self.layers else "embeds", torch.cat(self.said, dim=1)
        for row, ids, states_TD in zip(self.rows, answers, states_BTD, strict=True):
            longer = row.followed_by(ids[:-1])
            if longer.said:
                self.store.put(longer.answer, {name: states_TD[: longer.said].to("cpu", copy=True)})

    def _recall(self, name: str, like_BPD: Tensor) -> Tensor:
        """States of the batch from the store, 0 at its padding; each prompt as often as beams repeat it."""
        first = self._stored(self.rows[0].frame)[name]
        batch = first.new_zeros(len(self.rows), *first.shape[:-2], self.length, first.shape[-1])
        for states, row in zip(batch, self.rows, strict=True):
            start = self.length - row.length - row.said
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
