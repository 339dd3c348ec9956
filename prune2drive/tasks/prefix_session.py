"""What runs of one process that differ only in their keep ratios have in common: the search's memory of prompts.

Shape suffixes: P prompt positions.
"""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler

from prune2drive.data.datamodule import Batch, DriveDataModule
from prune2drive.models.adapter import Adapter
from prune2drive.models.prompts import Prompts
from prune2drive.pruning import Pruner
from prune2drive.pruning.reuse.prefix_cache import CacheEntry, PrefixReplay, fingerprint, reuse, untouched_layers
from prune2drive.pruning.reuse.prefix_store import PrefixStore
from prune2drive.pruning.reuse.selection_cache import SelectionCache
from prune2drive.pruning.reuse.shared_prefix import PromptPrefix

Ids = tuple[str, ...]
Draft = tuple[int, ...]


@dataclass(frozen=True)
class Reused:
    """A batch as it is to be answered.

    Args:
        prompts: the prompts, without images where the store knows their states.
        selections: selection orders of these prompts, and how each begins.
        replay: records or restores the prompts' states, and stores answers.
    """

    prompts: Prompts
    selections: SelectionCache
    replay: PrefixReplay


@dataclass
class PrefixSession:
    """The prompts of one model and dataset, as far as no keep ratio changes them.

    Args:
        store: states that enter the decoder and the first layer that a method touches.
        about: identifies model and dataset.
        orders: orders in which methods pick tokens.
        answers: sample id -> how often each answer was given, as token ids.
        batches: by the number of layers left out, the batches whose states are all in the store, without images, by
            their samples' ids.
        vision_flops: sample ids of a batch -> FLOPs of encoding one sample's images.
    """

    store: PrefixStore
    about: tuple[str, ...]
    orders: dict[tuple[str, ...], Any] = field(default_factory=dict)
    answers: dict[str, Counter[Draft]] = field(default_factory=dict)
    batches: dict[int, dict[Ids, Batch]] = field(default_factory=dict)
    vision_flops: dict[Ids, dict[str, int]] = field(default_factory=dict)
    _drafted: dict[Ids, tuple[Sequence[Draft], Prompts]] = field(default_factory=dict)
    _weights: tuple[Any, str] | None = None

    @contextmanager
    def reusing(
        self, adapter: Adapter, pruner: Pruner, batch: Batch, drafts: Sequence[Draft] | None = None
    ) -> Iterator[Reused]:
        """Lets a batch be answered from stored states, or drafts of its answers be verified, inside this context.

        Args:
            adapter: the model.
            pruner: the method, resolved.
            batch: the batch.
            drafts: token ids of one answer a prompt, to be read with the prompts.
        """
        entries, prompts = self._entries(adapter.model, pruner, batch), batch.inputs
        ids = ids_of(batch)
        selections = SelectionCache(self.orders, dict(zip(ids, _prefixes(entries, prompts), strict=True)))
        if drafts is not None:
            entries = [entry.followed_by(draft[:-1]) for entry, draft in zip(entries, drafts, strict=True)]
            if ids not in self._drafted or self._drafted[ids][0] != drafts:
                texts = [draft[:-1] for draft in drafts]
                self._drafted[ids] = drafts, prompts.without_images().followed_by(texts, adapter.pad)
            prompts = self._drafted[ids][1]
        layers, prefill_only = untouched_layers(pruner), drafts is not None
        with reuse(adapter.model, layers, self.store, entries, prefill_only) as replay:
            yield Reused(prompts.without_images() if replay.is_known else prompts, selections, replay)

    def keep(self, adapter: Adapter, pruner: Pruner, batch: Batch) -> None:
        """Keeps an answered batch without its images, where the store has all of its states."""
        ready, ids = self.ready(pruner), ids_of(batch)
        if ids in ready or batch.failures:
            return
        if all(entry.is_in(self.store) for entry in self._entries(adapter.model, pruner, batch)):
            ready[ids] = replace(batch, inputs=batch.inputs.without_images())

    def ready(self, pruner: Pruner) -> dict[Ids, Batch]:
        """Returns the batches that need not be made again for a method, by their samples' ids."""
        return self.batches.setdefault(untouched_layers(pruner), {})

    def drafts(
        self, adapter: Adapter, pruner: Pruner, batch: Batch, generation: Mapping[str, Any]
    ) -> list[Draft] | None:
        """Returns the most frequent answer to each question; None where some have none or cannot be verified."""
        is_greedy = not generation.get("do_sample") and generation.get("num_beams", 1) == 1
        known = [self.answers.get(sample.id) for sample in batch.samples]
        reads_together = pruner.traits.shares_picks_per_frame
        if not is_greedy or not all(known) or (not reads_together and 0 in pruner.cuts):
            return None
        drafts = [counts.most_common(1)[0][0] for counts in known if counts]
        entries = self._entries(adapter.model, pruner, batch)
        if reads_together:
            entries = [entry.followed_by(draft[:-1]) for entry, draft in zip(entries, drafts, strict=True)]
        return drafts if all(entry.is_in(self.store) for entry in entries) else None

    def count_answers(self, answers: Iterable[tuple[str, Draft]]) -> None:
        """Counts answers, given as sample id and token ids, for later drafts."""
        for name, ids in answers:
            self.answers.setdefault(name, Counter())[ids] += 1

    def _entries(self, model: Any, pruner: Pruner, batch: Batch) -> list[CacheEntry]:
        """Returns the store's keys of each prompt."""
        if self._weights is None or self._weights[0] is not model:
            self._weights = (model, fingerprint(model))
        about = "/".join((*self.about, self._weights[1], str(untouched_layers(pruner))))
        prompts = batch.inputs
        return [
            CacheEntry.of(about, sample.frame or sample.id, sample.id, ids_P, token_map)
            for sample, ids_P, token_map in zip(batch.samples, prompts.own_ids, prompts.token_maps, strict=True)
        ]


def ids_of(batch: Batch) -> Ids:
    """Returns the ids of a batch's samples."""
    return tuple(sample.id for sample in batch.samples)


def _prefixes(entries: Sequence[CacheEntry], prompts: Prompts) -> list[PromptPrefix]:
    """Returns how each prompt begins: up to its last visual token, and the text after it that all prompts share."""
    pairs = zip(entries, prompts.own_ids, strict=True)
    common = len(os.path.commonprefix([ids_P[entry.split : entry.length - 1].tolist() for entry, ids_P in pairs]))
    return [PromptPrefix(entry.frame, entry.split + common) for entry in entries]


class CachedDataModule(DriveDataModule):
    """A data module that first gives the batches that need not be made again.

    Args:
        ready: batches by their samples' ids.
        options: arguments of `DriveDataModule`.
    """

    def __init__(self, *options: Any, ready: Mapping[Ids, Batch], **more: Any) -> None:
        super().__init__(*options, **more)
        self.ready = ready

    def split_ready(self, sampler: UnrepeatedDistributedSampler) -> tuple[list[Batch], list[list[int]]]:
        ready, rest = [], []
        for places in super().split_ready(sampler)[1]:
            known = self.ready.get(tuple(self.ids[self.remaining[place]] for place in places))
            is_whole = known and all(one.has_images for one in known.samples if one.id in self.make_batch.drawn)
            ready.append(known) if known and is_whole else rest.append(places)
        return ready, rest
