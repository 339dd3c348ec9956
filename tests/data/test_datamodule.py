from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from prune2drive.data.datamodule import Batch, DriveDataModule
from prune2drive.errors import InputError
from prune2drive.sample import Prediction, Sample


class Numbers:
    """A dataset of `size` questions of which some have no readable image."""

    cameras = ("CAM_FRONT",)
    fingerprint = "numbers"

    def __init__(self, size, bad=(), of_frame=1):
        self.ids = [f"id{index}" for index in range(size)]
        self.bad, self.of_frame = bad, of_frame

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        if index in self.bad:
            raise InputError(f"photo{index}.jpg: no such image")
        images = {"CAM_FRONT": Image.new("RGB", (2, 2))}
        return Sample(self.ids[index], images, f"{index}?", f"<image>{index}?", f"{index}", (2,), "scene", "frame")

    def question(self, index):
        return f"{index}?"

    def frame(self, index):
        return f"frame{index // self.of_frame}"

    def check(self):
        pass


def number(sample):
    return int(sample.id.removeprefix("id"))


def collate(samples):
    """One row a sample; those from 100 on fail by themselves, 50 only beside another one."""
    numbers = [number(sample) for sample in samples]
    if too_long := [value for value in numbers if value >= 100]:
        raise InputError(f"id{too_long[0]}: prompt too long")
    if 50 in numbers and len(numbers) > 1:
        raise InputError("id50: sizes differ")
    return {"numbers": torch.tensor(numbers)}


def ids(batches):
    return [row.id for batch in batches for row in (*batch.samples, *batch.failures)]


@given(
    st.integers(0, 30), st.integers(1, 5), st.integers(1, 4), st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29))
)
def test_over_all_ranks_each_id_once(size, world_size, batch_size, done, bad):
    dataset = Numbers(size, bad)
    module = DriveDataModule(dataset, collate, batch_size, done={f"id{i}" for i in done}, on_error="skip")
    left = [name for i, name in enumerate(dataset.ids) if i not in done]
    assert [dataset.ids[i] for i in module.remaining] == left
    if 0 < len(left) < world_size:
        with pytest.raises(InputError, match=f"^trainer: {world_size} ranks for {len(left)} frames? left"):
            module.loader(world_size, 0)
        return
    batches = [list(module.loader(world_size, rank)) for rank in range(world_size)]
    assert Counter(name for mine in batches for name in ids(mine)) == Counter(left)
    assert all(len(ids([batch])) <= batch_size for mine in batches for batch in mine)
    failed = {row.id for mine in batches for batch in mine for row in batch.failures}
    assert failed == {f"id{i}" for i in bad - done if i < size}


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_without_padding(world_size):
    module = DriveDataModule(Numbers(7), collate, batch_size=2)
    shares = [ids(module.loader(world_size, rank)) for rank in range(world_size)]
    assert sorted(sum(shares, [])) == [f"id{i}" for i in range(7)]
    assert max(map(len, shares)) - min(map(len, shares)) == 1


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 4), st.integers(1, 7), st.sets(st.integers(0, 39)))
def test_frames_stay_together(frames, world_size, batch_size, done):
    dataset = Numbers(len(frames))
    dataset.frame = lambda index: f"frame{frames[index]}"
    module = DriveDataModule(dataset, collate, batch_size, done={f"id{i}" for i in done})
    remaining = Counter(frames[index] for index in module.remaining)
    if len(remaining) < world_size:
        return
    shares = [[ids([batch]) for batch in module.loader(world_size, rank)] for rank in range(world_size)]
    asked = [[Counter(frames[int(name[2:])] for name in batch) for batch in batches] for batches in shares]
    for frame, questions in remaining.items():
        assert len([share for share in asked if any(frame in batch for batch in share)]) == 1, "on one rank"
        parts = [batch[frame] for share in asked for batch in share if frame in batch]
        assert len(parts) == -(-questions // batch_size), "in no more batches than it fills"
    sizes = [sum(map(len, batches)) for batches in shares]
    assert max(sizes) - min(sizes) <= max(remaining.values())
    alone = DriveDataModule(dataset, collate, batch_size, done={f"id{i}" for i in done}, by_frame=False)
    assert all(len(ids([batch])) == batch_size for batch in list(alone.loader(1, 0))[:-1])


def test_questions_without_a_frame_are_divided():
    dataset = Numbers(6)
    dataset.frame = lambda index: ""
    module = DriveDataModule(dataset, collate, batch_size=2)
    assert [ids([batch]) for batch in module.loader(2, 0)] == [["id0", "id2"], ["id4"]]
    with pytest.raises(InputError, match="^trainer: 7 ranks for 6 questions left to answer, and a question is never"):
        DriveDataModule(dataset, collate, by_frame=False).loader(7, 0)


def test_batches_keep_the_order():
    batches = list(DriveDataModule(Numbers(5), collate, batch_size=2, done={"id1"}).test_dataloader())
    assert [batch.inputs["numbers"].tolist() for batch in batches] == [[0, 2], [3, 4]]
    assert [[sample.id for sample in batch.samples] for batch in batches] == [["id0", "id2"], ["id3", "id4"]]
    assert not any(batch.failures for batch in batches)


def test_a_skipped_sample_travels_as_a_row():
    first, second = DriveDataModule(Numbers(4, bad={1, 2, 3}), collate, 2, on_error="skip").test_dataloader()
    assert first.failures == [Prediction("id1", "1?", error="photo1.jpg: no such image")]
    assert first.inputs["numbers"].tolist() == [0]
    assert (second.samples, second.inputs, len(second.failures)) == ([], None, 2)


def test_skip_finds_which_sample_cannot_be_collated():
    dataset = Numbers(103, bad={98})
    module = DriveDataModule(dataset, collate, 5, done={f"id{i}" for i in range(98)}, on_error="skip")
    (batch,) = module.test_dataloader()
    assert batch.inputs["numbers"].tolist() == [99]
    assert [row.id for row in batch.failures] == ["id98", "id100", "id101", "id102"]
    assert batch.failures[1] == Prediction(
        "id100", "100?", None, "100", (2,), "scene", "frame", error="id100: prompt too long"
    )


def test_a_batch_may_fail_in_both_ways():
    module = DriveDataModule(Numbers(101, {99}), collate, 2, done={f"id{i}" for i in range(99)}, on_error="skip")
    (batch,) = module.test_dataloader()
    assert (batch.samples, [row.id for row in batch.failures]) == ([], ["id99", "id100"])


def test_skip_gives_up_on_a_batch_whose_samples_are_all_good_alone():
    module = DriveDataModule(Numbers(51), collate, 2, done={f"id{i}" for i in range(49)}, on_error="skip")
    with pytest.raises(InputError, match="^id50: sizes differ$"):
        list(module.test_dataloader())


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("size", "bad", "message"), [(6, {4}, "photo4.jpg: no such image"), (101, {}, "id100: prompt too long")]
)
def test_fail_keeps_its_own_line(num_workers, size, bad, message):
    module = DriveDataModule(Numbers(size, bad), collate, num_workers=num_workers, done={"id50"})
    seen = []
    with pytest.raises(InputError) as caught:
        for batch in module.test_dataloader():
            seen += ids([batch])
    assert str(caught.value) == message
    assert len(seen) == (4 if bad else 99)


def test_only_input_errors_are_skipped():
    with pytest.raises(ZeroDivisionError):
        list(DriveDataModule(Numbers(1), lambda samples: 1 // 0, on_error="skip").test_dataloader())
    broken = Numbers(1, bad=3)  # not a set: reading any sample is a TypeError
    with pytest.raises(TypeError):
        list(DriveDataModule(broken, collate, on_error="skip").test_dataloader())


def test_workers_give_the_same_batches():
    alone, helped = (
        [ids([batch]) for batch in DriveDataModule(Numbers(9, {3}), collate, 2, n, on_error="skip").test_dataloader()]
        for n in (0, 2)
    )
    assert alone == helped


def test_inputs_move_to_the_device():
    batch = Batch([Numbers(1)[0]], [], {"numbers": torch.ones(2)})
    moved = batch.to("meta")
    assert moved.inputs["numbers"].is_meta and not batch.inputs["numbers"].is_meta
    assert moved.samples == batch.samples
    assert Batch().to("meta") == Batch()


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.seen = []

    def test_step(self, batch, index):
        self.seen += ids([batch])


def test_lightning_runs_what_is_left():
    def run(**options):
        recorder = Recorder()
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.test(recorder, DriveDataModule(Numbers(5, {2}), collate, 2, **options), verbose=False)
        return recorder.seen

    assert run(on_error="skip", done={"id4"}) == ["id0", "id1", "id3", "id2"]
    assert run(done={f"id{i}" for i in range(5)}) == []
    with pytest.raises(InputError, match="^photo2.jpg: no such image$"):
        run()


def test_ranks_agree_on_what_remains():
    """A rank that starts later may have found more rows finished than the first one."""
    first_rank_says = SimpleNamespace(broadcast=lambda remaining: [0, 1, 2, 3, 4])
    module = DriveDataModule(Numbers(5), collate, done={"id1"})
    module.trainer = SimpleNamespace(world_size=2, global_rank=1, strategy=first_rank_says)
    assert ids(module.test_dataloader()) == ["id1", "id3"]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_workers": -1}, {"on_error": "ignore"}])
def test_options_are_checked(options):
    with pytest.raises(InputError, match=next(iter(options))):
        DriveDataModule(Numbers(1), collate, **options)


def test_images_are_kept_for_the_first_samples_of_a_rank():
    module = DriveDataModule(Numbers(7), collate, 2, done={"id0"}, keep_images=2)
    for rank, kept in ((0, ["id1", "id3"]), (1, ["id2", "id4"])):
        samples = [sample for batch in module.loader(2, rank) for sample in batch.samples]
        assert [sample.id for sample in samples if sample.has_images] == kept
        assert all(sample.cameras == ("CAM_FRONT",) for sample in samples)
        assert samples[0].images["CAM_FRONT"].size == (2, 2)
        with pytest.raises(RuntimeError, match="CAM_FRONT is no longer there"):
            samples[-1].images["CAM_FRONT"]
