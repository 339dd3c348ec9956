"""Which cameras' tokens are one pool: views by themselves, a camera with all its times, or the whole sample."""

import pytest
import torch
from helpers.families import SIZES, text_map
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import camera_of, clip_views
from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, Dynamic, PerCamera, Uniform, UniformPruner, prune
from prune2drive.pruning.surgery.prompt import Prompt

VIEWS = clip_views(("CAM_FRONT", "CAM_BACK"), 2)
TEXT = [11, 12, 13]


def pools(cameras, scope):
    token_map = text_map(TEXT, 4, tuple(cameras))
    return [pool.cameras for pool in Prompt([token_map.length], [token_map], [0], None, ["a"], None).pools(scope)]


@torch.no_grad()
def kept(make_family, pruner, keep, seed=0):
    """What a bare decoder keeps of a clip whose second front view shows the same as the first."""
    model, token_map = make_family("llama").model, text_map(TEXT, cameras=VIEWS)
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(1, token_map.length, SIZES["hidden_size"], generator=generator)
    first, second = (token_map.positions(view) for view in VIEWS[:2])
    embeds[:, second] = embeds[:, first]
    with prune(model, pruner, keep, token_map=token_map) as trace:
        model(inputs_embeds=embeds)
    return {view: set(indices.tolist()) for view, indices in trace.kept[0].items()}


@given(st.lists(st.sampled_from([*VIEWS, "roof", "CAM_BACK"]), min_size=1, unique=True))
def test_pools_by_scope(cameras):
    assert pools(cameras, "per_camera") == [(camera,) for camera in cameras]
    assert pools(cameras, "global") == [tuple(cameras)]
    together = {}
    for camera in cameras:
        together.setdefault(camera_of(camera), []).append(camera)
    assert pools(cameras, "over_time") == list(map(tuple, together.values()))


def test_what_stays_the_same_over_time_is_kept_once(make_family):
    found = kept(make_family, TFPS(layer=0, scope="over_time"), 0.5)
    front, later, *_ = found.values()
    assert len(front) + len(later) == 16 and not front & later
    alone = kept(make_family, TFPS(layer=0), 0.5)
    assert [len(of) for of in alone.values()] == [8] * 4 and alone["CAM_FRONT@0"] == alone["CAM_FRONT@1"]


@pytest.mark.parametrize("scope", ["per_camera", "over_time"])
def test_budgets_by_camera_and_by_view(make_family, scope):
    keep = PerCamera({"CAM_FRONT": 0.25, "CAM_FRONT@1": 0.5, "CAM_BACK": 1 / 16})
    sizes = {view: len(of) for view, of in kept(make_family, TFPS(layer=0, scope=scope), keep).items()}
    if scope == "per_camera":
        assert list(sizes.values()) == [4, 8, 1, 1]
    else:
        assert sizes["CAM_FRONT@0"] + sizes["CAM_FRONT@1"] == 12
        assert sizes["CAM_BACK@0"] + sizes["CAM_BACK@1"] == 2


@pytest.mark.parametrize("pool", ["joint", "radius"])
def test_a_shared_total_goes_to_cameras_over_time(make_family, pool):
    """Weights that name cameras hold for pools of their times; those of one view cannot."""
    towards = {"CAM_FRONT": 1.0, "CAM_BACK": 1e-4}
    for scope in ("per_camera", "over_time"):
        policy = Dynamic(0.25, pool, towards, exponent=1.0)
        found = kept(make_family, TFPS(layer=0, scope=scope), policy)
        assert sum(map(len, found.values())) == 16
        back = len(found["CAM_BACK@0"]) + len(found["CAM_BACK@1"])
        assert back == (2 if scope == "per_camera" else 1)
    with pytest.raises(InputError, match="weight for unknown camera CAM_FRONT@1: the cameras here are CAM_FRONT, CAM_"):
        policy = Dynamic(0.25, pool, {**towards, "CAM_FRONT@1": 1.0})
        kept(make_family, TFPS(layer=0, scope="over_time"), policy)


def test_a_method_that_looks_at_single_images_has_no_pool_over_time():
    with pytest.raises(InputError, match=r"pruner.scope=over_time: choose from per_camera$"):
        UniformPruner(scope="over_time")
    assert Uniform(0.1).ratios(VIEWS) == dict.fromkeys(VIEWS, 0.1)
