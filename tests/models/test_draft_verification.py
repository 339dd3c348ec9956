"""Answers that are checked in one pass: the same verdict as saying them again."""

import pytest
import torch
from helpers import runs
from PIL import Image

from prune2drive.data.dataset import multi_view_prompt
from prune2drive.models.prompts import Prompts
from prune2drive.sample import Sample

CAMERAS = ("CAM_FRONT", "CAM_BACK")
QUESTIONS = ["What is there?", "Is it red?", "How many cars are in front of the ego vehicle?", "And now?"]
ENDS = list(range(40, 90))


@pytest.fixture(scope="module")
def adapter():
    adapter = runs.Lively()
    adapter.model.generation_config.eos_token_id = ENDS
    return adapter


def ask(adapter, questions=QUESTIONS) -> Prompts:
    return adapter.collate(
        [
            Sample(
                name,
                {camera: Image.new("RGB", (112, 112), (90 * n, 7 * len(name), 0)) for n, camera in enumerate(CAMERAS)},
                name,
                multi_view_prompt(CAMERAS, name),
            )
            for name in questions
        ]
    )


def confirmed(adapter, prompts, drafts, **options):
    """The verdict, which is the same whether drafts are read with their prompts or behind them."""
    read = adapter.verify_answers(prompts.followed_by([ids[:-1] for ids in drafts], adapter.pad), drafts, **options)
    assert adapter.verify_answers(prompts, drafts, draft_in_prompt=False, **options) == read
    return read


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 1}])
def test_what_generate_says_is_confirmed_and_nothing_else(adapter, options):
    options = {"max_new_tokens": 7, "do_sample": False, **options}
    prompts = ask(adapter)
    said = [answer.ids for answer in adapter.generate(prompts, **options)]
    assert len({len(ids) for ids in said}) > 1, "answers of several lengths"
    assert confirmed(adapter, prompts, said, **options) == [True] * len(said)
    for row, ids in enumerate(said):
        for place in range(len(ids)):
            other = [*said]
            other[row] = (*ids[:place], ids[place] + 1, *ids[place + 1 :])
            assert confirmed(adapter, prompts, other, **options) == [at != row for at in range(len(said))]


@pytest.mark.parametrize(
    "option",
    [
        lambda ids: {"suppress_tokens": [ids[1]]},
        lambda ids: {"sequence_bias": [[[ids[0], ids[1]], -1e4]]},  # only right behind the first
    ],
)
def test_what_may_not_be_said_is_not_confirmed(adapter, option):
    options = {"max_new_tokens": 7, "do_sample": False}
    prompts = ask(adapter)
    said = [answer.ids for answer in adapter.generate(prompts, **options)]
    options |= option(said[0])
    others = [answer.ids for answer in adapter.generate(prompts, **options)]
    assert others[0] != said[0] and confirmed(adapter, prompts, others, **options) == [True] * len(said)
    assert confirmed(adapter, prompts, said, **options) == [
        one == other for one, other in zip(said, others, strict=True)
    ]


@pytest.mark.parametrize("option", [{"min_new_tokens": 2}, {"forced_eos_token_id": 5}])
def test_nothing_is_confirmed_where_answer_tokens_are_counted(adapter, option):
    options = {"max_new_tokens": 5, "do_sample": False, **option}
    prompts = ask(adapter)
    said = [answer.ids for answer in adapter.generate(prompts, **options)]
    drafted = prompts.followed_by([ids[:-1] for ids in said], adapter.pad)
    assert adapter.verify_answers(drafted, said, **options) == [False] * len(said)
    assert adapter.verify_answers(prompts, said, draft_in_prompt=False, **options) == [True] * len(said)


def test_text_behind_prompts_is_padded_on_the_left(adapter):
    prompts, texts, pad = ask(adapter), [[41], [], [42, 43, 44, 45, 46, 47, 48, 49, 50, 51], [52, 53]], 9
    longer = prompts.followed_by(texts, pad)
    for row, text in enumerate(texts):
        own, before = longer.own_ids[row], prompts.own_ids[row]
        assert own.tolist() == [*before.tolist(), *text]
        mask = longer.inputs["attention_mask"][row]
        assert (longer.inputs["input_ids"][row, : len(mask) - len(own)] == pad).all()
        assert int(mask.sum()) == len(own) == longer.lengths[row] and mask[len(mask) - len(own) :].all()
        for camera in CAMERAS:
            maps = (prompts.token_maps[row], longer.token_maps[row])
            assert torch.equal(*(token_map.positions(camera) for token_map in maps))
            assert torch.equal(*(token_map.boxes(camera) for token_map in maps))
    assert torch.equal(longer.inputs["pixel_values"], prompts.inputs["pixel_values"])
    assert max(longer.lengths) == longer.inputs["input_ids"].shape[1]


def test_batches_join_as_if_they_had_been_collated_together(adapter):
    parts = [ask(adapter, QUESTIONS[:1]), ask(adapter, QUESTIONS[1:3]), ask(adapter, QUESTIONS[3:])]
    joined, whole = Prompts.joined(parts, adapter.pad), ask(adapter)
    assert joined.inputs.keys() == whole.inputs.keys() and joined.lengths == whole.lengths
    assert all(torch.equal(joined.inputs[name], whole.inputs[name]) for name in whole.inputs)
