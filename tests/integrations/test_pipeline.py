"""A plain transformers pipeline inside `prune()`, as examples/transformers_pipeline.py uses it."""

import runpy

import pytest
from helpers import REPOSITORY, lmms_tasks

from prune2drive import prune
from prune2drive.minidrive.model import MiniDriveModel
from prune2drive.pruning import TFPS, NoPruner

EXAMPLE = runpy.run_path(str(REPOSITORY / "examples/transformers_pipeline.py"))
GREEDY = {"max_new_tokens": 32, "do_sample": False}


@pytest.fixture(scope="module")
def pipe():
    return EXAMPLE["load"](None)


@pytest.mark.slow
@pytest.mark.parametrize(("pruner", "keep", "kept"), [(NoPruner(), 1.0, 384), (TFPS(), 0.1, 36)])
def test_a_pipeline_answers_as_the_library(pruner, keep, kept, pipe):
    samples, adapter = lmms_tasks.samples(count=4), MiniDriveModel(dtype="float32")
    expected = []
    for sample in samples:
        prompts = adapter.collate([sample])
        with prune(adapter.model, pruner, keep, token_map=prompts.token_maps):
            expected += [answer.text for answer in adapter.generate(prompts, **GREEDY)]
    for size in (1, 4):
        found = []
        for first in range(0, len(samples), size):
            with prune(pipe.model, pruner, keep) as trace:
                found += EXAMPLE["ask"](pipe, samples[first : first + size])
            assert (trace.full_tokens, trace.kept_tokens) == ([384] * size, [kept] * size)
        assert found == expected
