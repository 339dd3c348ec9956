"""From a dataset to batches for the evaluation loop: what remains to do, on this rank, nothing dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import BatchSampler, DataLoader

from prune2drive.data.dataset import Dataset
from prune2drive.errors import InputError
from prune2drive.sample import Prediction, Sample

Collate = Callable[[list[Sample]], Any]


@dataclass
class Batch:
    """Samples with their model inputs, and the rows of those that could not be made.

    Args:
        samples: without their images, which the inputs hold in the form the model reads: photos of a
            frame are some 26 MB, too much to send from a worker once a question.
        inputs: what the model adapter's collate made of `samples`; None where there are none.
    """

    samples: list[Sample] = field(default_factory=list)
    failures: list[Prediction] = field(default_factory=list)
    inputs: Any = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch with its inputs on the device; Lightning calls it, and cannot walk frozen samples itself."""
        return replace(self, inputs=move_data_to_device(self.inputs, device))


def check_ranks(left: int, ranks: int) -> None:
    """Refuses to share so few samples that a rank has none, which the others would wait for without end.

    Raises:
        InputError: fewer samples are left than there are ranks.
    """
    if 0 < left < ranks:
        raise InputError(f"{left} samples left for {ranks} ranks; set trainer.devices to at most {left}")


class DriveDataModule(LightningDataModule):
    """Every question that is not `done` yet, exactly once over all ranks.

    The trainer must have `use_distributed_sampler=False`: Lightning's default repeats samples to fill
    the last batch, which biases every mean.

    Args:
        dataset: the questions.
        collate: makes model inputs of samples; runs in the loader's workers.
        batch_size: samples a batch.
        num_workers: processes that read and collate ahead; 0 for none.
        done: ids to leave out, finished by an earlier run.
        on_error: what a sample that cannot be read or collated does: "fail" ends the run with its
            message, "skip" lets it travel as a `Prediction` with an `error`.

    Attributes:
        remaining: indices still to do, over all ranks, in the dataset's order.

    Raises:
        InputError: an option out of its range.
    """

    def __init__(
        self,
        dataset: Dataset,
        collate: Collate,
        batch_size: int = 1,
        num_workers: int = 0,
        done: Set[str] = frozenset(),
        on_error: Literal["fail", "skip"] = "fail",
    ) -> None:
        super().__init__()
        if batch_size < 1 or num_workers < 0:
            raise InputError(f"batch_size={batch_size}, num_workers={num_workers}: use at least 1 and 0")
        if on_error not in ("fail", "skip"):
            raise InputError(f"on_error={on_error!r}: use fail or skip")
        self.remaining = [index for index, name in enumerate(dataset.ids) if name not in done]
        self.ids = dataset.ids
        self.make_batch = _MakeBatch(dataset, collate, skip=on_error == "skip")
        self.batch_size = batch_size
        self.num_workers = num_workers

    def test_dataloader(self) -> DataLoader[Any]:
        if self.trainer is None:
            return self.loader(1, 0)
        # Ranks started at different times may have seen different numbers of finished rows.
        self.remaining = self.trainer.strategy.broadcast(self.remaining)
        return self.loader(self.trainer.world_size, self.trainer.global_rank)

    def loader(self, world_size: int, rank: int) -> DataLoader[Any]:
        """The batches of one rank out of `world_size`.

        Raises:
            InputError: some ranks would have no sample, which they would wait on for ever.
        """
        check_ranks(len(self.remaining), world_size)
        sampler = UnrepeatedDistributedSampler(self.remaining, num_replicas=world_size, rank=rank, shuffle=False)
        ready, rest = self.split_ready(sampler)
        return _Loader(
            self.remaining,
            batch_sampler=rest,
            num_workers=self.num_workers if rest else 0,
            collate_fn=self.make_batch,
            ready=ready,
        )

    def split_ready(self, sampler: UnrepeatedDistributedSampler) -> tuple[list[Batch], list[list[int]]]:
        """Returns batches that are made already, and the places in `remaining` of each batch that has to be made."""
        return [], list(BatchSampler(sampler, self.batch_size, drop_last=False))


@dataclass
class _MakeBatch:
    """Reads and collates the samples at some indices; all a worker does."""

    dataset: Dataset
    collate: Collate
    skip: bool

    def __call__(self, indices: list[int]) -> Batch | InputError:
        try:
            batch = self._collated(self._read(indices))
            return replace(batch, samples=[replace(sample, images={}) for sample in batch.samples])
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
        """The batch with its inputs; with `skip`, without the samples that cannot be collated even alone."""
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
    """Batches that are ready, then those that have to be made."""

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
