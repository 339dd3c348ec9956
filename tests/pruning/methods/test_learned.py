import pytest
import torch
from helpers.contexts import context, pools_of
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, LearnedScorer
from prune2drive.pruning.token_scorer import TokenScorer, shows_object

ABOUT = {"layer": 1, "channels": 8, "depth": 4}
CTX = context(*pools_of(20, ("CAM_FRONT", "CAM_BACK")))


@pytest.fixture(scope="module")
def scorer():
    torch.manual_seed(0)
    drawn = TokenScorer(8, 4).requires_grad_(False)
    drawn.out.weight.mul_(10)
    return drawn


@pytest.fixture(scope="module")
def file(scorer, tmp_path_factory):
    path = tmp_path_factory.mktemp("scorers") / "mine.safetensors"
    scorer.write(path, ABOUT)
    return str(path)


def tokens(seed=0):
    return torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(seed))


def test_without_spreading_the_highest_scores_are_kept(scorer, file):
    picks = LearnedScorer(file=file, spread=False).select(tokens(), 5, CTX)
    scores = scorer(tokens())
    for pool in range(2):
        kept = scores[pool, picks[pool]]
        others = scores[pool, [at for at in range(20) if at not in picks[pool]]]
        assert kept.min() > others.max() and kept.tolist() == sorted(kept.tolist(), reverse=True)


def test_spreading_takes_one_of_two_equal_tokens_and_prefers_likely_ones(scorer, file):
    doubled = tokens()
    doubled[:, 10:] = doubled[:, :10]
    picks = LearnedScorer(file=file).select(doubled, 10, CTX)
    assert [len(set((row % 10).tolist())) for row in picks] == [10, 10]
    plain = TFPS().select(tokens(), 5, CTX)
    spread = LearnedScorer(file=file).select(tokens(), 5, CTX)
    likely = scorer(tokens()).sigmoid()
    assert likely.gather(1, spread).mean() > likely.gather(1, plain).mean()


def test_files_that_do_not_fit_are_named(file, tmp_path):
    with pytest.raises(InputError, match=r"task=train_scorer model=some.*pruner\.file="):
        LearnedScorer(name="some")
    with pytest.raises(InputError, match=r"pruner\.layer=2: .* was trained at layer 1"):
        LearnedScorer(file=file, layer=2)
    (tmp_path / "other").write_bytes(b"no weights")
    with pytest.raises(InputError, match="other: holds no token scorer"):
        LearnedScorer(file=str(tmp_path / "other"))
    fits, deeper = (Qwen2Config(hidden_size=8, num_hidden_layers=depth) for depth in (4, 5))
    assert LearnedScorer(file=file).unsupported_reason(fits) == ""
    assert "8 channels and 4 layers, and this model has 8 and 5" in LearnedScorer(file=file).unsupported_reason(deeper)


boxes = st.lists(st.integers(0, 8), min_size=4, max_size=4).map(lambda edges: (*sorted(edges[:2]), *sorted(edges[2:])))


@given(boxes)
def test_a_token_shows_an_object_that_covers_half_of_it_or_lies_half_in_it(drawn):
    x0, x1, y0, y1 = drawn
    grid = [(col, row, col + 2, row + 2) for row in range(0, 8, 2) for col in range(0, 8, 2)]
    found = shows_object(torch.tensor(grid).float(), torch.tensor([(x0, y0, x1, y1)]).float()).tolist()
    for cell, shows in zip(grid, found, strict=True):
        pixels = [(x, y) for x in range(x0, x1) for y in range(y0, y1)]
        inside = [(x, y) for x, y in pixels if cell[0] <= x < cell[2] and cell[1] <= y < cell[3]]
        assert shows == bool(inside and len(inside) >= min(4, len(pixels)) / 2)
