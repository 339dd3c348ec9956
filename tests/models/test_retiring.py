"""When rows may leave a batch as their answers end."""

import pytest
from transformers import GenerationConfig

from prune2drive.minidrive.model import packaged
from prune2drive.models.retiring import can_retire, takes_likeliest

GREEDY = {"max_new_tokens": 8, "do_sample": False}


def test_greedy_decoding_may():
    assert can_retire(GenerationConfig(), GREEDY)
    assert can_retire(GenerationConfig(repetition_penalty=1.2), GREEDY), "which reads the whole prompt"


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 8, "do_sample": True},
        {"do_sample": False},
        {**GREEDY, "num_beams": 2},
        {**GREEDY, "min_new_tokens": 2},
        {**GREEDY, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_other_options_keep_all_rows(options):
    assert not can_retire(GenerationConfig(), options)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True},
        {"num_beams": 3},
        {"min_new_tokens": 2},
        {"min_length": 9},
        {"forced_eos_token_id": 1},
        {"forced_bos_token_id": 1},
        {"begin_suppress_tokens": [1]},
        {"exponential_decay_length_penalty": (2, 1.5)},
    ],
    ids=str,
)
def test_settings_of_a_checkpoint_that_count_from_the_start_keep_all_rows(settings):
    assert not can_retire(GenerationConfig(**settings), {"max_new_tokens": 8})


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.05},
        {"no_repeat_ngram_size": 3},
        {"suppress_tokens": [5]},
        {"bad_words_ids": [[5]]},
        {"guidance_scale": 1.5},
        {"stop_strings": ["."]},
    ],
    ids=str,
)
def test_settings_that_change_the_likeliest_token_are_left_to_generate(settings):
    assert not takes_likeliest(GenerationConfig(**settings))


def test_sampling_settings_change_nothing_where_decoding_is_greedy():
    assert takes_likeliest(GenerationConfig(do_sample=True, temperature=0.7, top_p=0.8, top_k=20, eos_token_id=[1, 2]))
    assert takes_likeliest(GenerationConfig.from_pretrained(packaged())), "MiniDrive's"
