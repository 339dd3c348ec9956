"""What runs in one process share, so that a sweep or a search does not do again what no option of its runs changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from prune2drive.data.datamodule import Batch
from prune2drive.models.adapter import Answer, Prompts
from prune2drive.pruning import Pruner
from prune2drive.pruning.orders import Orders
from prune2drive.pruning.prefix import Row, fingerprint, reuse, untouched_layers
from prune2drive.pruning.prefix_store import PrefixStore

_LATEST: dict[str, tuple[str, Any]] = {}


def latest(kind: str, recipe: str, make: Callable[[], Any]) -> Any:
    """The latest object of a kind, if it was made by this recipe; otherwise a new one takes its place."""
    if _LATEST.get(kind, ("",))[0] != recipe:
        _LATEST.pop(kind, None)  # before there are two
        _LATEST[kind] = (recipe, make())
    return _LATEST[kind][1]


def forget() -> None:
    """Lets go of all of them."""
    _LATEST.clear()


def recipe(node: DictConfig) -> str:
    """A configuration as text, with the times at which files and folders that it names last changed."""
    content = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    return json.dumps([content, sorted(_changed(content))], sort_keys=True, default=str)


def _changed(content: Any) -> Iterator[tuple[str, int]]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _changed(each)
    elif isinstance(content, str) and 0 < len(content) < 4096 and "\n" not in content:
        path = Path(content).expanduser()
        if path.exists():
            for each in (path, *(path.iterdir() if path.is_dir() else ())):
                yield str(each), each.stat().st_mtime_ns


@dataclass
class Prefixes:
    """The prompts of one model and dataset, as far as no keep ratio changes them.

    Args:
        store: states that enter the decoder and its first layer that is touched.
        about: model and dataset.
        orders: in which methods pick the tokens.
        answers: how often which tokens answered a question, by the sample's id.
        batches: batches whose states are all in the store, without their images, by the samples' ids.
    """

    store: PrefixStore
    about: tuple[str, ...]
    orders: dict[tuple[str, ...], Any] = field(default_factory=dict)
    batches: dict[tuple[str, ...], Batch] = field(default_factory=dict)
    answers: dict[str, Counter[tuple[int, ...]]] = field(default_factory=dict)
    _weights: tuple[Any, str] | None = None

    @contextmanager
    def reusing(self, model: Any, pruner: Pruner, batch: Batch) -> Iterator[tuple[Prompts, Orders]]:
        """The context in which a batch is answered: its prompts as they are to be given, and the orders known of them.

        A batch that was answered is kept for the runs to come.
        """
        if self._weights is None or self._weights[0] is not model:
            self._weights = (model, fingerprint(model))
        layers, prompts = untouched_layers(pruner), batch.inputs
        about = "/".join((*self.about, self._weights[1], str(layers)))
        rows = [
            Row.of(about, sample.frame or sample.id, sample.id, ids_P, token_map)
            for sample, ids_P, token_map in zip(batch.samples, prompts.own_ids, prompts.token_maps, strict=True)
        ]
        frames = {sample.id: row.frame for sample, row in zip(batch.samples, rows, strict=True)}
        with reuse(model, layers, self.store, rows) as is_known:
            yield prompts.without_images() if is_known else prompts, Orders(self.orders, frames)
        if not batch.failures and all(row.is_in(self.store) for row in rows):
            self.batches[batch.ids] = replace(batch, inputs=prompts.without_images())

    def drafts(self, batch: Batch, pruner: Pruner, generation: Mapping[str, Any]) -> list[tuple[int, ...]] | None:
        """The most frequent answer to each question; None where there are none, or checking them cannot tell."""
        is_greedy = not generation.get("do_sample") and generation.get("num_beams", 1) == 1
        known = [self.answers.get(sample.id) for sample in batch.samples]
        if not is_greedy or pruner.cuts[0] == 0 or not all(known):
            return None
        return [counts.most_common(1)[0][0] for counts in known if counts]

    def note(self, batch: Batch, answers: Sequence[Answer]) -> None:
        """Counts answers, for drafts."""
        for sample, answer in zip(batch.samples, answers, strict=True):
            self.answers.setdefault(sample.id, Counter())[answer.ids] += 1
