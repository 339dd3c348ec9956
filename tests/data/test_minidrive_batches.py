from dataclasses import replace

import pytest
import torch

from prune2drive.data.minidrive import MiniDrive
from prune2drive.data.minidrive_batches import IGNORED, NAMES, OUTSIDE, PREFIX, PackedMiniDrive, Recipe, block_mask
from prune2drive.data.minidrive_questions import KINDS_ASKED
from prune2drive.models.minidrive_tokenizer import build_tokenizer

RECIPE = Recipe(scenes=2, questions=3, difficulties={"standard": 1.0}, kinds=dict.fromkeys(KINDS_ASKED, 1.0))


def packed(rank=0, world=1):
    return PackedMiniDrive(lambda: ((step, RECIPE) for step in range(2)), build_tokenizer(), rank, world)


def test_a_step_is_the_same_however_many_ranks_share_it():
    whole = packed().batch(7, RECIPE)
    for rank in (0, 1):
        share = packed(rank=rank, world=2).batch(7, RECIPE)
        assert torch.equal(share["pixels_SC3HW"], whole["pixels_SC3HW"][rank::2])
        length = share["ids_ST"].shape[1]
        assert torch.equal(share["ids_ST"], whole["ids_ST"][rank::2, :length])
    assert len(list(packed())) == 2
    assert not torch.equal(packed().batch(8, RECIPE)["pixels_SC3HW"], whole["pixels_SC3HW"])


def test_a_validation_batch_reads_like_the_dataset():
    tokenizer = build_tokenizer()
    recipe = Recipe(1, {"standard": 1.0}, {}, split="val")
    batch, dataset = packed().batch(0, recipe), MiniDrive("val", size=len(KINDS_ASKED))
    for number in range(len(KINDS_ASKED)):
        sample = dataset[number]
        message = [{"role": "user", "content": sample.prompt}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text.replace("<image>", "<image>" * 65)).input_ids
        answer = [*tokenizer(sample.answer).input_ids, tokenizer.eos_token_id]
        seen = (batch["segment_ST"][0] == PREFIX) | (batch["segment_ST"][0] == number)
        assert batch["ids_ST"][0][seen].tolist() == prompt + answer[:-1]
        assert batch["position_ST"][0][seen].tolist() == list(range(len(prompt + answer) - 1))
        labels = batch["labels_ST"][0][seen]
        assert labels[labels != IGNORED].tolist() == answer


def test_a_subject_is_named_where_its_answer_begins():
    tokenizer, batch = build_tokenizer(), packed().batch(0, RECIPE)
    for at, (scene, place) in enumerate(batch["subjects"]["at"].T.tolist()):
        assert batch["ids_ST"][scene, place] == tokenizer.convert_tokens_to_ids("<|assistant|>")
        segment = batch["ids_ST"][scene][batch["segment_ST"][scene] == batch["segment_ST"][scene, place]]
        text = tokenizer.decode(segment)
        kind = NAMES["kind"][batch["subjects"]["kind"][at]]
        row = NAMES["row"][batch["subjects"]["row"][at]]
        assert kind in text.lower() or row in text


def test_pictures_can_come_alone():
    batch = packed().batch(0, replace(RECIPE, questions=0))
    assert set(batch) == {"pixels_SC3HW", "names_IN"}


def test_a_question_sees_the_prefix_and_its_own_past():
    segment = torch.tensor([[PREFIX, PREFIX, 0, 0, 1, 1, OUTSIDE]])
    expected = """
        1 1 1 0 0 0 0
        1 1 1 1 0 0 0
        1 1 0 0 1 0 0
        1 1 0 0 1 1 0
        1 1 0 0 0 0 1"""
    rows = [[bool(int(cell)) for cell in line.split()] for line in expected.strip().splitlines()]
    assert block_mask(segment, 2)[0, 0].tolist() == rows


@pytest.mark.parametrize("resolution, tokens", [(112, 64), (196, 196)])
def test_every_patch_has_names(resolution, tokens):
    recipe = Recipe(1, {"dense": 1.0}, {"exist": 1.0}, scenes=2, resolution=resolution)
    names = packed().batch(0, recipe)["names_IN"]
    assert set(names) == set(NAMES)
    for group, indices in names.items():
        assert indices.shape == (12, tokens)
        assert indices.max() < len(NAMES[group])
    assert (names["kind"] != IGNORED).all() and (names["colour"] == IGNORED).any()
