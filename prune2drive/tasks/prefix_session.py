"""The prompts of one model and dataset that runs of one process have in common."""

from __future__ import annotations

import os.path
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prune2drive.data.datamodule import Batch
from prune2drive.models.adapter import Adapter
from prune2drive.models.prompts import Prompts
from prune2drive.pruning import Pruner
from prune2drive.pruning.reuse.prefix_cache import Replay, Row, fingerprint, reuse, untouched_layers
from prune2drive.pruning.reuse.prefix_store import PrefixStore
from prune2drive.pruning.reuse.selection_cache import Orders
from prune2drive.pruning.reuse.shared_prefix import Beginning


@dataclass(frozen=True)
class Reused:
    """A batch's prompts as they are to be given, what is known of them, and what keeps their answers."""

    prompts: Prompts
    orders: Orders
    replay: Replay


def _beginnings(rows: Sequence[Row], prompts: Prompts) -> list[Beginning]:
    """How each prompt begins: up to its last visual token, and the text behind that which all prompts have."""
    texts = [ids_P[row.split : row.length - 1].tolist() for row, ids_P in zip(rows, prompts.own_ids, strict=True)]
    common = len(os.path.commonprefix(texts))
    return [Beginning(row.frame, row.split + common) for row in rows]


@dataclass
class Prefixes:
    """The prompts of one model and dataset, as far as no keep ratio changes them.

    Args:
        store: states that enter the decoder and its first layer that is touched.
        about: model and dataset.
        orders: in which methods pick the tokens.
        answers: how often which tokens answered a question, by the sample's id.
        batches: batches whose states are all in the store, without their images, by how many layers those leave out and
            the samples' ids.
    """

    store: PrefixStore
    about: tuple[str, ...]
    orders: dict[tuple[str, ...], Any] = field(default_factory=dict)
    batches: dict[int, dict[tuple[str, ...], Batch]] = field(default_factory=dict)
    answers: dict[str, Counter[tuple[int, ...]]] = field(default_factory=dict)
    _drafted: dict[tuple[str, ...], tuple[Sequence[tuple[int, ...]], Prompts]] = field(default_factory=dict)
    _weights: tuple[Any, str] | None = None

    @contextmanager
    def reusing(
        self, adapter: Adapter, pruner: Pruner, batch: Batch, drafts: Sequence[tuple[int, ...]] | None = None
    ) -> Iterator[Reused]:
        """The context in which a batch is answered, or drafts of its answers are checked."""
        rows, prompts = self._rows(adapter.model, pruner, batch), batch.inputs
        orders = Orders(self.orders, dict(zip(batch.ids, _beginnings(rows, prompts), strict=True)))
        if drafts is not None:
            rows = [row.followed_by(draft[:-1]) for row, draft in zip(rows, drafts, strict=True)]
            if batch.ids not in self._drafted or self._drafted[batch.ids][0] != drafts:
                behind = [draft[:-1] for draft in drafts]
                self._drafted[batch.ids] = drafts, prompts.without_images().followed_by(behind, adapter.pad)
            prompts = self._drafted[batch.ids][1]
        with reuse(adapter.model, untouched_layers(pruner), self.store, rows, is_final=drafts is not None) as replay:
            yield Reused(prompts.without_images() if replay.is_known else prompts, orders, replay)

    def keep(self, adapter: Adapter, pruner: Pruner, batch: Batch) -> None:
        """Spares the runs to come making a batch that was answered."""
        ready = self.ready(pruner)
        if batch.ids in ready or batch.failures:
            return
        if all(row.is_in(self.store) for row in self._rows(adapter.model, pruner, batch)):
            ready[batch.ids] = replace(batch, inputs=batch.inputs.without_images())

    def ready(self, pruner: Pruner) -> dict[tuple[str, ...], Batch]:
        """The batches that need not be made again for a method, by the samples' ids."""
        return self.batches.setdefault(untouched_layers(pruner), {})

    def drafts(
        self, adapter: Adapter, pruner: Pruner, batch: Batch, generation: Mapping[str, Any]
    ) -> list[tuple[int, ...]] | None:
        """The most frequent answer to each question; None where there are none, or checking them cannot tell."""
        is_greedy = not generation.get("do_sample") and generation.get("num_beams", 1) == 1
        known = [self.answers.get(sample.id) for sample in batch.samples]
        if not is_greedy or not all(known) or (pruner.sees_question and pruner.cuts[0] == 0):
            return None
        drafts = [counts.most_common(1)[0][0] for counts in known if counts]
        rows = self._rows(adapter.model, pruner, batch)
        if not pruner.sees_question:
            rows = [row.followed_by(draft[:-1]) for row, draft in zip(rows, drafts, strict=True)]
        return drafts if all(row.is_in(self.store) for row in rows) else None

    def note(self, answers: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        """Counts answers by the samples' ids, for drafts."""
        for name, ids in answers:
            self.answers.setdefault(name, Counter())[ids] += 1

    def _rows(self, model: Any, pruner: Pruner, batch: Batch) -> list[Row]:
        """Where the states of each prompt are kept."""
        if self._weights is None or self._weights[0] is not model:
            self._weights = (model, fingerprint(model))
        about = "/".join((*self.about, self._weights[1], str(untouched_layers(pruner))))
        prompts = batch.inputs
        return [
            Row.of(about, sample.frame or sample.id, sample.id, ids_P, token_map)
            for sample, ids_P, token_map in zip(batch.samples, prompts.own_ids, prompts.token_maps, strict=True)
        ]
