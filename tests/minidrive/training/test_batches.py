import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from prune2drive.cameras import spoken_name
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.questions import QUESTION_KINDS
from prune2drive.minidrive.scene import make_scene
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.training.batches import PADDING, PREFIX, PackedMiniDrive, block_mask
from prune2drive.minidrive.training.recipe import Recipe
from prune2drive.minidrive.training.targets import ATTRIBUTES, IGNORED
from prune2drive.minidrive.vocabulary import NUMBERS, PLURALS

RECIPE = Recipe(scenes=2, questions=3, difficulties={"standard": 1.0}, kinds=dict.fromkeys(QUESTION_KINDS, 1.0))


def packed(rank=0, world=1):
    return PackedMiniDrive(lambda: ((step, RECIPE) for step in range(2)), build_tokenizer(), rank, world)


def test_batch_of_a_step_is_the_same_however_many_ranks_share_it():
    whole = packed().batch(7, RECIPE)
    for rank in (0, 1):
        share = packed(rank=rank, world=2).batch(7, RECIPE)
        assert torch.equal(share["pixels_SC3HW"], whole["pixels_SC3HW"][rank::2])
        length = share["ids_ST"].shape[1]
        assert torch.equal(share["ids_ST"], whole["ids_ST"][rank::2, :length])
    assert len(list(packed())) == 2
    assert not torch.equal(packed().batch(8, RECIPE)["pixels_SC3HW"], whole["pixels_SC3HW"])


def test_workers_change_neither_batches_nor_their_order():
    steps = [[batch["pixels_SC3HW"] for batch in DataLoader(packed(), batch_size=None, num_workers=n)] for n in (0, 2)]
    assert all(torch.equal(*batches) for batches in zip(*steps, strict=True))


@pytest.mark.parametrize("asked", [{"version": 1}, {"version": 2}, {"times": 2}, {"times": 3}], ids=str)
def test_batch_of_validation_reads_and_looks_like_the_dataset(asked):
    tokenizer, recipe = build_tokenizer(), Recipe(1, {"standard": 1.0}, {}, split="val", **asked)
    dataset = MiniDrive("val", size=len(recipe.frame_kinds), **asked)
    batch = packed().batch(0, recipe)
    images = [np.asarray(image) for image in dataset[0].images.values()]
    assert np.array_equal(batch["pixels_SC3HW"][0].permute(0, 2, 3, 1), images)
    for number in range(len(dataset)):
        sample = dataset[number]
        message = [{"role": "user", "content": sample.prompt}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text.replace("<image>", "<image>" * 65)).input_ids
        answer = [*tokenizer(sample.reference).input_ids, tokenizer.eos_token_id]
        seen = (batch["segment_ST"][0] == PREFIX) | (batch["segment_ST"][0] == number)
        assert batch["ids_ST"][0][seen].tolist() == prompt + answer[:-1]
        assert batch["position_ST"][0][seen].tolist() == list(range(len(prompt + answer) - 1))
        labels = batch["labels_ST"][0][seen]
        assert labels[labels != IGNORED].tolist() == answer


def targets():
    """Yields for each question its scene, text, answer, the asked and the subject's attributes, and its evidence."""
    tokenizer, batch = build_tokenizer(), packed().batch(0, replace(RECIPE, questions=24))
    for number, (scene, place) in enumerate(batch["targets"]["answer_start"].T.tolist()):
        assert batch["ids_ST"][scene, place] == tokenizer.convert_tokens_to_ids("<|assistant|>")
        own = batch["segment_ST"][scene] == batch["segment_ST"][scene, place]
        ids, after = batch["ids_ST"][scene], torch.arange(len(own)) > place
        texts = [tokenizer.decode(ids[own & part], skip_special_tokens=True) for part in (~after, after)]
        words = {
            what: {a: ATTRIBUTES[a][i[number]] for a, i in batch["targets"][what].items() if i[number] != IGNORED}
            for what in ("asked", "subject")
        }
        yield scene, *texts, words["asked"], words["subject"], batch["targets"]["evidence"][number]


def test_targets_asked_are_in_the_question():
    seen = set()
    for _, question, _, asked, *_ in targets():
        if match := re.search(r"<c(.),(CAM_\w+),([\d.]+),([\d.]+)>", question):
            tag = f"<c{match[1]},", match[2], f",{match[3]}", f",{match[4]}>"
            assert tuple(asked[name] for name in ("number", "camera", "column", "row")) == tag
        if "Is there" in question:
            assert f"a {asked['colour']} {asked['kind']} to the {spoken_name(asked['camera'])} of" in question
        if "How many" in question:
            assert f"{PLURALS[asked['kind']]} are to the {spoken_name(asked['camera'])} of" in question
        seen |= set(asked)
    assert seen == {"number", "camera", "column", "row", "colour", "kind"}


def test_targets_subject_is_in_the_answer_and_its_tokens_are_the_evidence():
    scenes = [make_scene("train", slot, "standard") for slot in range(2)]
    named = 0
    for scene, question, answer, _, subject, evidence in targets():
        owners = np.unique(scenes[scene].patch_owners((8, 8)).reshape(-1)[evidence])
        if subject:
            (owner,) = owners
            obj = scenes[scene].objects[owner]
            assert (obj.kind, obj.camera) == (subject["kind"], subject["camera"])
        if "visual description" in question:
            assert answer.lower() == f"{obj.name}."
            named += 1
        if "How many" in question:
            assert NUMBERS.index(answer.rstrip(".")) == len(owners)
            named += 1
    assert named


def test_batch_can_hold_images_alone():
    batch = packed().batch(0, replace(RECIPE, questions=0))
    assert set(batch) == {"pixels_SC3HW", "attributes_IN"}


def test_block_mask_shows_a_question_the_prefix_and_its_own_past():
    segment = torch.tensor([[PREFIX, PREFIX, 0, 0, 1, 1, PADDING]])
    expected = """
        1 1 1 0 0 0 0
        1 1 1 1 0 0 0
        1 1 0 0 1 0 0
        1 1 0 0 1 1 0
        1 1 0 0 0 0 1"""
    rows = [[bool(int(cell)) for cell in line.split()] for line in expected.strip().splitlines()]
    assert block_mask(segment, 2)[0, 0].tolist() == rows


@pytest.mark.parametrize("resolution, tokens", [(112, 64), (196, 196)])
def test_patch_attributes_cover_every_patch(resolution, tokens):
    recipe = Recipe(1, {"dense": 1.0}, {"exist": 1.0}, scenes=2, resolution=resolution)
    words = packed().batch(0, recipe)["attributes_IN"]
    assert set(words) == set(ATTRIBUTES)
    for name, indices in words.items():
        assert indices.shape == (12, tokens)
        assert indices.max() < len(ATTRIBUTES[name])
    there = words["presence"] == ATTRIBUTES["presence"].index("object")
    assert there.any() and (there == (words["kind"] != IGNORED)).all() and (there == (words["row"] != IGNORED)).all()
