"""Every stock family from a checkpoint to pruned answers, and one picture that shows several cameras."""

import pytest
import torch
from helpers import originals, stock
from hydra.utils import get_class
from PIL import Image

from prune2drive import prune
from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.models.internvl import InternVL
from prune2drive.models.llava_onevision import LlavaOnevision
from prune2drive.models.qwen_vl import QwenVL
from prune2drive.models.smolvlm import SmolVLM
from prune2drive.mosaic import Mosaic
from prune2drive.pruning import TFPS
from prune2drive.sample import Sample

GREEDY = {"max_new_tokens": 3, "do_sample": False}
LAYOUT = Mosaic([["FL", "F", "FR"], ["BR", "B", "BL"]])
# Tokens of one 112 x 112 camera image.
TOKENS = {"llava": 16, "llava_onevision": 16, "internvl": 4, "qwen2_5_vl": 16, "qwen3_vl": 16, "smolvlm": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("stock")
    for family in stock.MODULES:
        stock.save(family, root / family)
    return root


@pytest.fixture(scope="module")
def samples():
    """Two questions about three cameras, prompts of different lengths."""
    dataset = MiniDrive(size=8, cameras=["CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK"])
    return [dataset[0], dataset[3]]


def adapter_of(family, folders, **options):
    return get_class(stock.target(family))(str(folders / family), **options)


@pytest.mark.parametrize("family", stock.MODULES)
def test_a_family_answers_pruned(family, folders, samples):
    adapter = adapter_of(family, folders)
    prompts = adapter.collate(samples)
    image = adapter.config.image_token_id
    newline = family == "llava_onevision"
    for row, (sample, token_map) in enumerate(zip(samples, prompts.token_maps, strict=True)):
        assert token_map.cameras == sample.cameras and set(token_map.counts.values()) == {TOKENS[family]}
        assert (prompts.inputs["input_ids"][row] == image).sum() == 3 * (TOKENS[family] + newline)
    with prune(adapter.model, TFPS(layer=1), keep=0.5, token_map=prompts.token_maps) as trace:
        answers = adapter.generate(prompts, **GREEDY)
    assert trace.kept_tokens == [3 * TOKENS[family] // 2] * 2 and len(answers) == 2


@pytest.mark.parametrize("family", stock.MODULES)
def test_token_boxes_are_where_the_pixels_are(family, folders):
    """Changing one corner of the photo changes the features of the tokens whose boxes show it, before they mix."""
    adapter = adapter_of(family, folders)
    gray = Image.new("RGB", (112, 112), (100, 100, 100))
    marked = gray.copy()
    marked.paste((255, 0, 0), (0, 0, 14, 14))
    pixels = []
    for image in (gray, marked):
        sample = Sample("a", {"F": image}, "?", "<image> what ?")
        prompts = adapter.collate([sample, sample])
        pixels.append(prompts.with_images.inputs["pixel_values"])
    assert not torch.equal(*pixels)
    boxes = prompts.token_maps[0].boxes("F")
    assert boxes[0, :2].max() <= 1e-6 and boxes[:, 2:].max() >= 1 - 1e-6


@pytest.mark.parametrize("family", stock.MODULES)
def test_the_system_prompt_comes_first(family, folders):
    adapter = adapter_of(family, folders, system="the view")
    assert adapter.chat("<image> what ?").startswith("<|system|>the view<|user|>")
    assert adapter_of(family, folders).chat("what ?").startswith("<|user|>what ?")


def test_a_marker_of_qwen_has_its_brackets(folders):
    text = adapter_of("qwen3_vl", folders).chat("1 : <image> ?")
    assert "<|vision_start|><|image_pad|><|vision_end|>" in text


def test_fewer_pixels_are_fewer_tokens(folders, samples):
    few = QwenVL(str(folders / "qwen2_5_vl"), max_pixels=28 * 28 * 4).collate(samples)
    assert set(few.token_maps[0].counts.values()) == {4}
    with pytest.raises(InputError, match="max_pixels=10: one token shows 784 pixels"):
        QwenVL(str(folders / "qwen2_5_vl"), max_pixels=10)


def stitched(width=96, height=54):
    images = {camera: Image.new("RGB", (width, height), (index, 9, 9)) for index, camera in enumerate(LAYOUT.cameras)}
    return Sample("a", images, "what ?", "<image> what ?", mosaic=LAYOUT)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("internvl", {}),
        ("internvl", {"tiles": 6}),
        ("internvl", {"tiles": 12}),
        ("llava_onevision", {}),
        ("qwen2_5_vl", {}),
        ("smolvlm", {"split": True}),
        ("llava", {}),
    ],
)
def test_a_stitched_picture(family, options, folders):
    """All of the picture's tokens, parted between its cameras."""
    adapter = adapter_of(family, folders, **options)
    sample = stitched()
    try:
        prompts = adapter.collate([sample, sample])
    except InputError as error:
        assert family == "internvl" and not options and "too coarse" in str(error)  # 2 x 2 tokens for 2 x 3 cameras
        return
    token_map = prompts.token_maps[1]
    assert token_map.cameras == LAYOUT.cameras and min(token_map.counts.values()) >= 1
    shown = (prompts.inputs["input_ids"][0] == adapter.config.image_token_id).sum()
    newlines = sum(view.rows for view in token_map.views) if family == "llava_onevision" else 0
    assert shown - newlines <= sum(token_map.counts.values()) <= shown
    with prune(adapter.model, TFPS(layer=1), keep=0.5, token_map=prompts.token_maps) as trace:
        adapter.generate(prompts, **GREEDY)
    assert list(trace.kept[0]) == list(LAYOUT.cameras)


@pytest.mark.parametrize(("size", "grid"), [((96, 54), (1, 3)), ((54, 96), (2, 1)), ((54, 54), (2, 3))])
def test_tiles_are_where_the_processor_cuts(size, grid, folders):
    """288 x 108 is nearest to three tiles side by side, 162 x 192 to ..., each tile a distinct colour."""
    adapter = InternVL(str(folders / "internvl"), tiles=6)
    sample = stitched(*size)
    prompts = adapter.collate([sample])
    picture = LAYOUT.stitch(sample.images)
    tiles = adapter.processor.image_processor(images=[picture], return_tensors="pt", **adapter.image_options)
    count = len(tiles["pixel_values"])
    assert count == len(prompts.inputs["pixel_values"])
    whole = adapter.image_info({}, [picture.size[::-1]]).tiles[0]
    assert whole[0] * whole[1] + (whole[0] * whole[1] > 1) == count
    # The tile at the top left shows front-left's colour alone, unless it is wider than a third of the picture.
    shown = tiles["pixel_values"][0, 0]
    assert (shown.std() < 1e-3) == (whole[1] % 3 == 0 and whole[0] % 2 == 0)


@pytest.mark.parametrize(("family", "options"), [("internvl", {"tiles": 0}), ("internvl", {"tiles": "many"})])
def test_impossible_options(family, options, folders):
    with pytest.raises(InputError, match="model.tiles=.*1 or more"):
        adapter_of(family, folders, **options)


def test_flash_attention_that_is_not_installed(folders):
    with pytest.raises(InputError, match="flash-attn is not installed; use sdpa"):
        LlavaOnevision(str(folders / "llava_onevision"), attention="flash_attention_2")


def test_another_family_is_named(folders, tmp_path):
    with pytest.raises(InputError, match="a smolvlm model, expected llava_onevision or llava_llama or llava_qwen"):
        LlavaOnevision(str(folders / "smolvlm"))
    originals.internvl_chat(tmp_path / "chat")
    with pytest.raises(
        InputError, match="a internvl_chat model, expected smolvlm; an adapter of internvl models converts"
    ):
        SmolVLM(str(tmp_path / "chat"))
    originals.write_json(tmp_path / "config.json", {"model_type": "phi3_v", "auto_map": {"AutoModel": "x.Y"}})
    with pytest.raises(
        InputError, match="a phi3_v model, .* code of its own, which is never run here, and is not one of"
    ):
        SmolVLM(str(tmp_path))


def test_a_device_map(folders):
    model = LlavaOnevision(str(folders / "llava_onevision"), device_map="cpu").model
    assert model.device == torch.device("cpu")
