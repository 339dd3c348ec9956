"""What runs of one process that differ only in their keep ratios have in common: the search's memory of frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prune2drive.data.datamodule import Batch, DriveDataModule
from prune2drive.models.adapter import Adapter
from prune2drive.pruning import Pruner
from prune2drive.pruning.reuse.frame_memory import FrameMemory, fingerprint
from prune2drive.pruning.reuse.prefix_store import PrefixStore

Ids = tuple[str, ...]


@dataclass
class FrameSession:
    """The frames of one model and dataset, as far as no keep ratio changes them.

    Args:
        store: states of frames.
        about: identifies model and dataset.
        batches: by method, the batches whose frames are all remembered, without images, by their samples' ids.
        vision_flops: sample ids of a batch -> FLOPs of encoding one sample's images.
    """

    store: PrefixStore
    about: tuple[str, ...]
    batches: dict[str, dict[Ids, Batch]] = field(default_factory=dict)
    vision_flops: dict[Ids, dict[str, int]] = field(default_factory=dict)
    _memory: tuple[Any, FrameMemory] | None = None

    def memory(self, adapter: Adapter) -> FrameMemory:
        """Returns the memory of a model's frames."""
        if self._memory is None or self._memory[0] is not adapter.model:
            about = "/".join((*self.about, fingerprint(adapter.model)))
            self._memory = adapter.model, FrameMemory(self.store, about)
        return self._memory[1]

    def keep(self, pruner: Pruner, batch: Batch) -> None:
        """Keeps a batch, all of whose frames are remembered, without its images."""
        if not batch.failures:
            self.ready(pruner).setdefault(ids_of(batch), replace(batch, inputs=batch.inputs.without_images()))

    def ready(self, pruner: Pruner) -> dict[Ids, Batch]:
        """Returns the batches that need not be made again for a method, by their samples' ids."""
        return self.batches.setdefault(repr(pruner), {})


def ids_of(batch: Batch) -> Ids:
    """Returns the ids of a batch's samples."""
    return tuple(sample.id for sample in batch.samples)


class RememberingDataModule(DriveDataModule):
    """A data module that first gives the batches that need not be made again.

    Args:
        ready: batches by their samples' ids.
        options: arguments of `DriveDataModule`.
    """

    def __init__(self, *options: Any, ready: Mapping[Ids, Batch], **more: Any) -> None:
        super().__init__(*options, **more)
        self.made = ready

    def split_ready(self, batches: list[list[int]]) -> tuple[list[Batch], list[list[int]]]:
        ready, rest = [], []
        for indices in batches:
            known = self.made.get(tuple(self.dataset.ids[index] for index in indices))
            is_whole = known and all(one.has_images for one in known.samples if one.id in self.make_batch.drawn)
            ready.append(known) if known and is_whole else rest.append(indices)
        return ready, rest
