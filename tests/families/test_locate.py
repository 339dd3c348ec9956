import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    InternVLConfig,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionModel,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen3VLConfig,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

from prune2drive.errors import InputError
from prune2drive.families.base import ImageInfo
from prune2drive.families.llava_onevision import padded_frame
from prune2drive.families.locate import locate, locate_batch

IMAGE, TEXT, NEWLINE = 7, 50, -1
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PINPOINTS = [[28 * rows, 28 * cols] for rows in range(1, 7) for cols in range(1, 7)]


def onevision(**options):
    return LlavaOnevisionConfig(
        text_config=Qwen2Config(**SMALL, vocab_size=96),
        vision_config=SiglipVisionConfig(**SMALL, image_size=28, patch_size=7, vision_use_head=False),
        image_token_id=IMAGE,
        **{"image_grid_pinpoints": PINPOINTS, **options},
    )


def llava(strategy="default", tower="clip"):
    vision = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}[tower]
    return LlavaConfig(
        text_config=LlamaConfig(**SMALL, vocab_size=96),
        vision_config=vision(**SMALL, image_size=28, patch_size=7),
        image_token_id=IMAGE,
        vision_feature_select_strategy=strategy,
    )


def internvl():
    return InternVLConfig(
        text_config=Qwen2Config(**SMALL, vocab_size=96),
        vision_config=InternVLVisionConfig(**SMALL, image_size=[56, 28], patch_size=[7, 7]),
        image_token_id=IMAGE,
        downsample_ratio=0.5,
    )


def qwen(config):
    return config(
        text_config={**SMALL, "num_key_value_heads": 2, "vocab_size": 96},
        vision_config={"spatial_merge_size": 2, "depth": 1, "hidden_size": 16, "embed_dim": 16, "num_heads": 2},
        image_token_id=IMAGE,
    )


def prompt(*parts):
    """Ids of a prompt: numbers are runs of image tokens, None a text token between them."""
    return torch.tensor([token for part in parts for token in ([TEXT] if part is None else [IMAGE] * part)])


def grid_of(token_map, index=0):
    view = token_map.views[index]
    return view.camera, view.rows, view.cols


# LLaVA-OneVision


@pytest.mark.parametrize("between", [[None], [None] * 4, []], ids=["one", "four", "none"])
def test_onevision_images_with_and_without_text_between(between):
    ids = prompt(None, None, 17, *between, 17, *between, 17, None)
    sizes = [[28, 28], [14, 28], [28, 14]]
    token_map = locate(ids, onevision(), ("A", "B", "C"), ImageInfo([3], sizes))
    assert token_map.counts == {"A": 16, "B": 16, "C": 16}
    for index, camera in enumerate("ABC"):
        start = 2 + index * (17 + len(between))
        assert token_map.positions(camera).tolist() == list(range(start, start + 16))
        assert token_map.view_P[start + 16] == -1  # the newline
    assert [view.frame for view in token_map.views] == [(0, 0, 1, 1), (0, -0.5, 1, 1.5), (-0.5, 0, 1.5, 1)]


def test_a_padded_frame_is_a_square_around_the_image():
    for height, width in ((900, 1600), (1600, 900), (448, 448)):
        x0, y0, x1, y1 = padded_frame(height, width)
        side = max(height, width)
        assert ((x1 - x0) * width, (y1 - y0) * height) == pytest.approx((side, side))
        assert (x0 + x1, y0 + y1) == pytest.approx((1, 1))


SIZES = [
    (28, 28),
    (56, 28),
    (20, 150),
    (150, 20),
    (90, 160),
    (37, 41),
    (168, 168),
    (167, 100),
    (84, 91),
    (1, 300),
    (333, 9),
]


@pytest.fixture(scope="module")
def packer():
    return LlavaOnevisionModel(onevision())


@pytest.mark.parametrize("most", [1, 2, 4, 9])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_single_onevision_image_is_laid_out_as_the_model_packs_it(packer, size, most):
    """Newlines are marked in the packed features; what is located are all other tokens."""
    tiles = image_size_to_num_patches(torch.tensor(size), PINPOINTS, 28)
    features = [torch.arange(tiles * 16.0).view(tiles, 16, 1) + 1]
    packed, (count,) = packer.pack_image_features(
        features, torch.tensor([size]), torch.full((1,), float(NEWLINE)), vision_aspect_ratio=f"anyres_max_{most}"
    )
    ids, config = prompt(None, int(count), None), onevision(vision_aspect_ratio=f"anyres_max_{most}")
    token_map = locate(ids, config, ["A"], ImageInfo([1], [size]))
    assert torch.equal(token_map.view_P[1:-1] >= 0, packed[0][:, 0] != NEWLINE)
    overview, *details = token_map.views
    assert (overview.rows, overview.cols) == (4, 4)
    if not details:
        assert min(size) < 10  # too narrow for a single token
        return
    (detail,) = details
    ends = (packed[0][:, 0] == NEWLINE).nonzero().flatten()
    assert len(ends) == detail.rows and ends[0] == 16 + detail.cols
    assert token_map.counts == {"A": 16 + detail.rows * detail.cols}
    assert token_map.row_P[token_map.view_P == 1].tolist() == [
        r for r in range(detail.rows) for _ in range(detail.cols)
    ]


def test_onevision_prompts_that_do_not_fit():
    config = onevision()
    with pytest.raises(InputError, match="image_sizes.*token_map="):
        locate(prompt(None, 36), config, None, ImageInfo([1]))
    with pytest.raises(InputError, match="35 visual tokens do not fit an image of 28 x 28"):
        locate(prompt(None, 35), config, None, ImageInfo([1], [[28, 28]]))
    with pytest.raises(InputError, match="no multiple .* = 17"):
        locate(prompt(None, 33), config, None, ImageInfo([2], [[28, 28]] * 2))
    with pytest.raises(InputError, match="3 images, but 2 cameras"):
        locate(prompt(17, None, 17, None, 17), config, ["A", "B"], ImageInfo([3]))


def test_image_sizes_and_tokens_that_disagree():
    with pytest.raises(InputError, match="3 images .* image_sizes, not 2"):
        locate(prompt(17, None, 17, None, 17), onevision(), None, ImageInfo([2], [[28, 28]] * 2))


# LLaVA, InternVL, Qwen


@pytest.mark.parametrize(
    ("config", "size", "first"),
    [(llava(), 16, 0), (llava("full"), 17, 1), (llava("full", "siglip"), 16, 0)],
    ids=["default", "full", "siglip"],
)
def test_llava_leaves_out_the_class_token(config, size, first):
    token_map = locate(prompt(None, size, size, None), config, None, ImageInfo())
    assert token_map.counts == {"image_0": 16, "image_1": 16}
    assert grid_of(token_map) == ("image_0", 4, 4)
    assert token_map.positions("image_1")[0] == 1 + size + first
    with pytest.raises(InputError, match=f"no multiple .* = {size}"):
        locate(prompt(None, size + 1, None), config, None, ImageInfo())


def test_internvl_has_a_grid_a_tile():
    token_map = locate(prompt(None, 8, None, 24, None), internvl(), ("A", "B"), ImageInfo())
    assert [grid_of(token_map, index) for index in range(4)] == [("A", 4, 2)] + [("B", 4, 2)] * 3
    assert token_map.counts == {"A": 8, "B": 24}
    assert token_map.row_P[1:9].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(InputError, match="no multiple of tokens a tile = 8"):
        locate(prompt(None, 9), internvl(), None, ImageInfo())


@pytest.mark.parametrize("config", [Qwen2VLConfig, Qwen2_5_VLConfig, Qwen3VLConfig])
def test_qwen_grids_after_merging(config):
    ids, grids = prompt(None, 6, None, 8), [[1, 4, 6], [2, 2, 8]]
    token_map = locate(ids, qwen(config), ("A", "B"), ImageInfo(grid_thw=grids))
    assert [grid_of(token_map, index) for index in range(3)] == [("A", 2, 3), ("B", 1, 4), ("B", 1, 4)]
    assert token_map.positions("B").tolist() == list(range(8, 16))
    with pytest.raises(InputError, match="run of 6 .* does not fit its grid 1 x 2 x 4"):
        locate(ids, qwen(config), None, ImageInfo(grid_thw=[[1, 4, 8], [2, 2, 8]]))
    with pytest.raises(InputError, match="2 images .* image_grid_thw"):
        locate(ids, qwen(config), None, ImageInfo(grid_thw=grids[:1]))
    with pytest.raises(InputError, match="image_grid_thw.*token_map="):
        locate(ids, qwen(config), None, ImageInfo())


@pytest.mark.parametrize("config", [onevision(), llava(), internvl(), qwen(Qwen2_5_VLConfig)])
def test_a_prompt_without_images(config):
    with pytest.raises(InputError, match="no visual tokens"):
        locate(prompt(None, None), config, None, ImageInfo())


def test_an_unknown_family_is_named_with_a_way_out():
    with pytest.raises(InputError, match="'llama'.*llava_onevision.*token_map="):
        locate(prompt(None, 4), LlamaConfig(**SMALL), None, ImageInfo())


# Batches


def test_a_batch_gives_each_prompt_its_own_images():
    config = onevision()
    prompts = [prompt(None, 17, 17, None), prompt(None, None, 36), prompt(17, None, 17, None, 17)]
    longest = max(map(len, prompts))
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in prompts])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in prompts])
    sizes = [[28, 14], [14, 28], [28, 28], [28, 28], [14, 28], [28, 14]]
    cameras = [("A", "B"), ("A",), ("C", "D", "E")]
    maps = locate_batch(ids, mask, config, cameras, ImageInfo([2, 1, 3], sizes))
    assert [token_map.cameras for token_map in maps] == cameras
    assert [token_map.length for token_map in maps] == [len(row) for row in prompts]
    alone = [
        locate(prompts[0], config, cameras[0], ImageInfo([2], sizes[:2])),
        locate(prompts[1], config, cameras[1], ImageInfo([1], sizes[2:3])),
        locate(prompts[2], config, cameras[2], ImageInfo([3], sizes[3:])),
    ]
    for found, expected in zip(maps, alone, strict=True):
        assert found.views == expected.views and torch.equal(found.view_P, expected.view_P)


@pytest.mark.parametrize("counts", [[1, 2], None])
def test_beams_share_the_images_of_their_prompt(counts):
    """`generate` repeats each prompt in place, its images are given once."""
    config, grids = qwen(Qwen2_5_VLConfig), [[1, 2, 6], [1, 4, 4], [1, 6, 2]]
    rows = [torch.nn.functional.pad(row, (8 - len(row), 0), value=TEXT) for row in (prompt(3), prompt(4, None, 3))]
    ids = torch.stack(rows).repeat_interleave(2, dim=0)
    maps = locate_batch(ids, None, config, None, ImageInfo(counts, grid_thw=grids))
    assert [token_map.views for token_map in maps[::2]] == [token_map.views for token_map in maps[1::2]]
    assert [[(view.rows, view.cols) for view in token_map.views] for token_map in maps[::2]] == [
        [(1, 3)],
        [(2, 2), (3, 1)],
    ]
