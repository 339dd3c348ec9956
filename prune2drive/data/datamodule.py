"""Makes batches of whole frames from a dataset's remaining questions, divided between ranks, each question once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import islice
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.sample import Prediction, Sample

Collate = Callable[[list[Sample]], Any]
AUTO, AUTO_START = "auto", 64
"""The batch size that halves where memory does not suffice, and with which it begins."""


@dataclass
class Batch:
    """Samples with their model inputs.

    Args:
        samples: questions, most of them with their images released: the photos of a frame are some 26 MB, too much to
            send from a worker for every question.
        failures: rows of samples that could not be read or collated.
        inputs: model inputs that the adapter's `collate` made of `samples`; None where there are no samples.
    """

    samples: list[Sample] = field(default_factory=list)
    failures: list[Prediction] = field(default_factory=list)
    inputs: Any = None

    def to(self, device: torch.device | str) -> Batch:
        """Moves the inputs to a device; Lightning calls this, since it cannot move frozen samples itself."""
        return replace(self, inputs=move_data_to_device(self.inputs, device))


def check_batch_size(size: Any) -> None:
    """Checks a number of questions in a batch.

    Raises:
        InputError: neither a whole number above 0 nor `auto`.
    """
    if size != AUTO and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise InputError(f"batch_size={size}: use a whole number, 1 or more, or auto")


def check_ranks(groups: int, ranks: int, unit: str) -> None:
    """Refuses fewer frames or questions than ranks: the other ranks would wait for one for ever.

    Args:
        groups: number of frames with questions that remain to do or, where questions do not stay together, of these.
        ranks: number of ranks.
        unit: `frame` or `question`.

    Raises:
        InputError: there are fewer than ranks.
    """
    if 0 < groups < ranks:
        some = f"{groups} {unit}" if groups == 1 else f"{groups} {unit}s"
        raise InputError(
            f"trainer: {ranks} ranks for {some} left to answer, and a {unit} is never divided; let trainer.devices "
            f"times trainer.num_nodes be at most {groups}"
        )


def divide(groups: Sequence[list[int]], ranks: int) -> list[list[list[int]]]:
    """Divides groups between ranks, each to the one that has the fewest questions so far."""
    shares: list[list[list[int]]] = [[] for _ in range(ranks)]
    heap = [(0, rank) for rank in range(ranks)]
    for group in groups:
        questions, rank = heappop(heap)
        shares[rank].append(group)
        heappush(heap, (questions + len(group), rank))
    return shares


def fill_batches(groups: Sequence[list[int]], batch_size: int) -> list[list[int]]:
    """Fills batches with whole groups as long as they fit; a group that is larger than a batch is cut."""
    batches: list[list[int]] = []
    for group in groups:
        for start in range(0, len(group), batch_size):
            part = group[start : start + batch_size]
            if batches and len(batches[-1]) + len(part) <= batch_size:
                batches[-1] += part
            else:
                batches.append(part)
    return batches


class DriveDataModule(LightningDataModule):
    """Gives every question that is not `done` exactly once over all ranks.

    The trainer must have `use_distributed_sampler=False`: Lightning's default repeats samples to fill the last batch,
    which biases every mean.

    Args:
        dataset: the questions.
        collate: makes model inputs of samples; runs in the loader's workers.
        batch_size: number of samples in a batch; `auto` begins with `AUTO_START`.
        by_frame: whether the questions of a frame stay together, on one rank and in one batch as long as they fit.
        num_workers: number of processes that read and collate ahead; 0 for none.
        done: ids of questions that an earlier run finished.
        on_error: what happens to a sample that cannot be read or collated: "fail" ends the run with the error's
            message, "skip" turns the sample into a `Prediction` with an `error`.
        keep_images: number of samples, the first of each rank, that keep their images, to be drawn later.

    Attributes:
        remaining: indices of the questions to do, over all ranks, in the dataset's order.

    Raises:
        InputError: an option is out of its range.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Collate,
        batch_size: int | Literal["auto"] = 1,
        num_workers: int = 0,
        done: Set[str] = frozenset(),
        on_error: Literal["fail", "skip"] = "fail",
        keep_images: int = 0,
        by_frame: bool = True,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        check_whole("num_workers", num_workers, least=0)
        check_choice("on_error", on_error, ("fail", "skip"))
        self.keep_images = keep_images
        self.remaining = [index for index, name in enumerate(dataset.ids) if name not in done]
        self.dataset, self.by_frame = dataset, by_frame
        self.make_batch = _MakeBatch(dataset, collate, skip=on_error == "skip")
        self.batch_size: int = AUTO_START if batch_size == "auto" else batch_size
        self.num_workers = num_workers

    def test_dataloader(self) -> DataLoader[Any]:
        if self.trainer is None:
            return self.loader(1, 0)
        # Ranks started at different times may have seen different numbers of finished rows.
        self.remaining = self.trainer.strategy.broadcast(self.remaining)
        return self.loader(self.trainer.world_size, self.trainer.global_rank)

    def loader(self, world_size: int, rank: int) -> DataLoader[Any]:
        """Returns the batches of one rank.

        Args:
            world_size: number of ranks.
            rank: this rank, from 0.

        Raises:
            InputError: fewer samples than ranks.
        """
        groups = group_by_frame(self.dataset, self.remaining) if self.by_frame else [[at] for at in self.remaining]
        check_ranks(len(groups), world_size, "frame" if self.by_frame else "question")
        batches = fill_batches(divide(groups, world_size)[rank], self.batch_size)
        first = islice((index for batch in batches for index in batch), self.keep_images)
        self.make_batch.drawn = {self.dataset.ids[index] for index in first}
        ready, rest = self.split_ready(batches)
        return _Loader(
            range(len(self.dataset)),  # indices, which `make_batch` reads
            batch_sampler=rest,
            num_workers=self.num_workers if rest else 0,
            collate_fn=self.make_batch,
            ready=ready,
        )

    def divided(self, ids: Sequence[str], size: int) -> Iterator[Batch]:
        """Reads some questions again, in smaller batches.

        Raises:
            InputError: a sample that cannot be read or collated any more.
        """
        wanted = set(ids)
        indices = [index for index in self.remaining if self.dataset.ids[index] in wanted]
        for start in range(0, len(indices), size):
            batch = self.make_batch(indices[start : start + size])
            if isinstance(batch, InputError):
                raise batch
            yield batch

    def split_ready(self, batches: list[list[int]]) -> tuple[list[Batch], list[list[int]]]:
        """Returns batches that are made already, and the questions of each batch that has to be made."""
        return [], batches


@dataclass
class _MakeBatch:
    """Reads and collates the samples at some indices: the work of a loader's worker.

    Args:
        dataset: the questions.
        collate: makes model inputs of samples.
        skip: whether samples that cannot be read or collated become failures.
        drawn: ids of samples that keep their images.
    """

    dataset: Dataset
    collate: Collate
    skip: bool
    drawn: Set[str] = frozenset()

    def __call__(self, indices: list[int]) -> Batch | InputError:
        try:
            batch = self._collated(self._read(indices))
            kept = [sample if sample.id in self.drawn else sample.without_images() for sample in batch.samples]
            return replace(batch, samples=kept)
        except InputError as error:  # raised by a worker, it would arrive with a traceback as its message
            return error

    def _read(self, indices: list[int]) -> Batch:
        batch = Batch()
        for index in indices:
            try:
                batch.samples.append(self.dataset[index])
            except InputError as error:
                if not self.skip:
                    raise
                name, question = self.dataset.ids[index], self.dataset.question(index)
                batch.failures.append(Prediction(name, question, error=str(error)))
        return batch

    def _collated(self, batch: Batch) -> Batch:
        """Adds the inputs to a batch; with `skip`, samples that cannot be collated even alone become failures."""
        samples, failures = batch.samples, batch.failures
        if not samples:
            return batch
        try:
            return Batch(samples, failures, self.collate(samples))
        except InputError as error:
            if not self.skip:
                raise
            if len(samples) == 1:
                return Batch([], [*failures, Prediction.of(samples[0], error=str(error))])
            alone = [self._collated(Batch([sample])) for sample in samples]
            good = [sample for single in alone for sample in single.samples]
            if len(good) == len(samples):
                raise
            bad = [failure for single in alone for failure in single.failures]
            return self._collated(Batch(good, failures + bad))


class _Loader(DataLoader[Any]):
    """Gives batches that are ready, then those that have to be made."""

    def __init__(self, *args: Any, ready: Sequence[Batch], **options: Any) -> None:
        super().__init__(*args, **options)
        self.ready = ready

    def __len__(self) -> int:
        return len(self.ready) + super().__len__()

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # narrower: errors end here
        yield from self.ready
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch
