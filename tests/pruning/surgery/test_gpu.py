"""What only a CUDA device shows."""

import warnings

import pytest
import torch
from helpers import families, frames

from prune2drive import prune
from prune2drive.pruning import DART, PACT, TFPS, CDPruner, FastV, RandomPruner, SparseVLM, UniformPruner, VisPruner
from prune2drive.pruning.selection import farthest_points

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_picks_are_those_of_the_cpu():
    tokens = torch.randn(6, 729, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(farthest_points(tokens.cuda(), 72).cpu(), farthest_points(tokens, 72))


@pytest.mark.parametrize("start", ["isolated", "centroid", 5])
@pytest.mark.parametrize("mode", ["farthest", "nearest"])
def test_no_pick_waits_for_the_device(mode, start):
    tokens = torch.randn(6, 729, 64, device="cuda")
    farthest_points(tokens, 4, start=start, mode=mode)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            farthest_points(tokens, 73, start=start, mode=mode)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert len(waits) <= (start == 5)  # an index is copied there


@pytest.mark.parametrize(
    "pruner", [DART(), PACT(layer=2), SparseVLM(layers=[1, 2, 3]), CDPruner(), VisPruner()], ids=str
)
def test_kept_tokens_are_those_of_the_cpu(pruner):
    kept = []
    for device in ("cpu", "cuda"):
        family = families.make("llava_onevision")
        family.model.to(device)
        inputs = {key: value.to(device) for key, value in family.inputs([[11, 12, 13], [21, 22, 23, 24]]).items()}
        with torch.no_grad(), prune(family.model, pruner, 0.25, cameras=families.CAMERAS) as trace:
            family.model(**inputs)
        kept.append([[each.tolist() for each in row.values()] for row in trace.kept])
    assert kept[0] == kept[1]


@pytest.mark.parametrize("pruner", [TFPS(), RandomPruner(), UniformPruner(), FastV()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", ["llava_onevision", "qwen3_vl"])
def test_a_ragged_batch_in_bfloat16(name, pruner):
    family = families.make(name)
    family.model.to("cuda", torch.bfloat16)
    inputs = family.inputs([[11, 12, 13], [21, 22, 23, 24]], [1, 2])
    inputs = {
        key: value.to("cuda", torch.bfloat16 if value.is_floating_point() else None) for key, value in inputs.items()
    }
    with prune(family.model, pruner, 0.25, cameras=families.CAMERAS) as trace:
        answers = family.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answers.shape[1] == inputs["input_ids"].shape[1] + 3
    assert trace.kept_tokens == [len(families.CAMERAS) * families.TOKENS // 4] * 2


@pytest.mark.parametrize("pruner", [TFPS(), FastV(layer=2)], ids=lambda p: type(p).__name__)
def test_questions_share_their_frames(pruner):
    family = families.make("llava_onevision")
    family.model.cuda()
    found, expected = (way(family, pruner, 0.3) for way in (frames.by_frame, frames.by_question))
    assert torch.equal(found.tokens, expected.tokens) and torch.allclose(found.logits, expected.logits, atol=1e-3)
