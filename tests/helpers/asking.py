"""A ragged batch of prompts for every family, and what a model answers."""

import torch

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]  # cameras in each prompt
STEPS = 3


def generate(model, inputs, steps=STEPS, **options):
    options = {"max_new_tokens": steps, "do_sample": False, **options}
    return model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)


def answer(model, inputs, steps=STEPS, **options):
    """New tokens [B, S] and their logits [B, S, V]."""
    out = generate(model, inputs, steps, **options)
    return out.sequences[:, -steps:], torch.stack(out.logits, dim=1)


def assert_close(found, expected):
    """Within 1e-5 of the largest logit."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


def one(family, row=0, texts=TEXTS, counts=COUNTS):
    """One prompt of the batch by itself, and its naming."""
    return family.inputs(texts[row : row + 1], [row], counts[row : row + 1]), family.naming(
        texts[row : row + 1], counts[row : row + 1]
    )


def batch(family):
    return family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)
