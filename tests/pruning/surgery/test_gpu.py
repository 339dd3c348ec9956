"""What only a CUDA device shows."""

import pytest
import torch
from helpers import families
from helpers.shared_frames import answers, prompts

from prune2drive import prune
from prune2drive.pruning import TFPS, FastV, RandomPruner, UniformPruner
from prune2drive.pruning.reuse.selection_cache import SelectionCache
from prune2drive.pruning.selection import farthest_points

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_picks_are_those_of_the_cpu():
    tokens = torch.randn(6, 729, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(farthest_points(tokens.cuda(), 72).cpu(), farthest_points(tokens, 72))


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


def test_questions_share_their_frames():
    family = families.make("llava_onevision")
    asked, beginnings = prompts(family)
    family.model.cuda()
    asked = asked.to("cuda")
    ids, logits, _ = answers(family.model, asked, TFPS(), 0.3)
    mine, my_logits, _ = answers(family.model, asked, TFPS(), 0.3, SelectionCache({}, beginnings))
    assert torch.equal(mine, ids) and torch.allclose(my_logits, logits, atol=1e-3)
