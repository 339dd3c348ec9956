"""Smaller images for the vision tower: the prompt is as if the model had been given them."""

from dataclasses import replace
from math import isqrt

import pytest
import torch
from helpers.families import CAMERAS, IMAGE, TOKENS
from torch.nn.functional import interpolate

from prune2drive.errors import InputError
from prune2drive.pruning import Dynamic, PerCamera, Resize, prune


def features(model, pixels_IHW, shape):
    """What the model's own tower and projector make of images of another size; [I, rows * cols, D]."""
    core, patch = model.base_model, model.config.vision_config.patch_size
    small = interpolate(pixels_IHW, [side * patch for side in shape], mode="bicubic", antialias=True)
    layer = model.config.vision_feature_layer
    states = core.vision_tower(small, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[layer]
    if model.config.vision_feature_select_strategy == "default":
        states = states[:, 1:]
    return core.multi_modal_projector(states)


@torch.inference_mode()
def expected(family, inputs, shapes):
    """The last logits of prompts with the tokens of smaller images, numbered without gaps, one prompt at a time.

    Args:
        shapes: rows and columns of each image of a prompt.
    """
    model = family.model
    core, pixels = model.base_model, inputs["pixel_values"].flatten(0, -4)
    images = [features(model, image[None], shapes[at % len(shapes)])[0] for at, image in enumerate(pixels)]
    newline = [core.image_newline[None]] if family.run > TOKENS else []
    logits = []
    for ids, real in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
        parts, ids = [], ids[real]
        while len(ids):
            is_image = ids[0] == IMAGE
            parts += [images.pop(0), *newline] if is_image else [core.get_input_embeddings()(ids[:1])]
            ids = ids[family.run if is_image else 1 :]
        logits.append(model(inputs_embeds=torch.cat(parts)[None]).logits[0, -1])
    return torch.stack(logits)


@pytest.mark.parametrize("name", ["llava", "llava_onevision"])
@pytest.mark.parametrize(
    ("ratios", "shapes"),
    [
        ((0.25, 0.25, 0.25), [(2, 2)] * 3),
        ((0.8, 0.4, 0.07), [(3, 4), (2, 3), (1, 1)]),
        ((1.0, 0.6, 0.2), [(4, 4), (3, 3), (1, 3)]),
    ],
)
def test_the_prompt_is_that_of_smaller_images(make_family, name, ratios, shapes):
    family = make_family(name)
    inputs = family.inputs([[11, 12], [13, 14, 15]])
    with (
        torch.inference_mode(),
        prune(family.model, Resize(), PerCamera(dict(zip(CAMERAS, ratios, strict=True))), cameras=CAMERAS) as trace,
    ):
        found = family.model(**inputs).logits[:, -1]
    torch.testing.assert_close(found, expected(family, inputs, shapes), rtol=1e-4, atol=1e-4)
    assert [len(trace.kept[0][camera]) for camera in CAMERAS] == [rows * cols for rows, cols in shapes]
    assert trace.kept[0]["CAM_FRONT"].tolist() == sorted(trace.kept[0]["CAM_FRONT"].tolist())


@pytest.mark.parametrize("count", [side**2 for side in range(1, 28)])
def test_an_image_fills_its_budget_as_a_square_would(count):
    side = isqrt(count)
    for k in range(1, count + 1):
        rows, cols = Resize().image_shape(k, count)
        assert (
            1 <= rows <= cols <= min(side, rows + 2) and rows * cols <= k < (cols == side) * count + (cols + 1) * rows
        )
        assert Resize().sizes(k, count) == [rows * cols] == Resize().sizes(rows * cols, count)
        picks = Resize().select(torch.zeros(2, count, 1), k, None)[1]
        cells = [divmod(int(at), side) for at in picks]
        parts = {((2 * row + 1) * rows // (2 * side), (2 * col + 1) * cols // (2 * side)) for row, col in cells}
        assert len(parts) == len(picks) == rows * cols


def test_beams_and_later_tokens_see_the_same(make_family):
    family = make_family("llava_onevision")
    inputs = family.inputs([[11, 12], [13, 14, 15]])
    options = {"max_new_tokens": 4, "do_sample": False}
    with torch.inference_mode(), prune(family.model, Resize(), 0.3, cameras=CAMERAS):
        together = family.model.generate(**inputs, **options, num_beams=2)
    for row in range(2):
        alone = family.inputs([[11, 12]] if row == 0 else [[13, 14, 15]], seeds=[row])
        with torch.inference_mode(), prune(family.model, Resize(), 0.3, cameras=CAMERAS):
            tokens = family.model.generate(**alone, **options, num_beams=2)
        assert tokens[0, -4:].tolist() == together[row, -4:].tolist()


def test_the_tower_sees_no_more_than_it_shows(make_family):
    family = make_family("llava")
    seen, tower = [], family.model.base_model.vision_tower
    counting = tower.embeddings.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0].shape), with_kwargs=True
    )
    with torch.inference_mode(), prune(family.model, Resize(), 0.25, cameras=CAMERAS):
        family.model(**family.inputs([[11]]))
    counting.remove()
    assert seen == [torch.Size([3, 3, 14, 14])] and "forward" not in vars(tower)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "smolvlm"])
def test_families_whose_images_cannot_be_made_smaller_are_refused(make_family, name):
    family = make_family(name)
    with pytest.raises(InputError, match="^Resize: the images of .* cannot be made smaller here, only those of llava"):
        with prune(family.model, Resize(), 0.5, cameras=CAMERAS):
            pass


def test_what_cannot_be_is_said(make_family):
    with pytest.raises(InputError, match="^Resize: layer=1: a smaller image has fewer tokens from the start"):
        Resize(layer=1)
    family = make_family("llava_onevision")
    with pytest.raises(InputError, match="ratios look at the tokens, and Resize needs a budget before"):
        with prune(family.model, Resize(), Dynamic(keep=0.5), cameras=CAMERAS):
            pass
    single = replace(family, run=52).inputs([[11]], counts=[1])
    single["pixel_values"] = torch.randn(1, 3, 3, 28, 28)  # an overview and two tiles
    with pytest.raises(InputError, match="^Resize: an image of .* tokens is no square of patches"):
        with prune(family.model, Resize(), 0.5, cameras=CAMERAS[:1]), torch.inference_mode():
            family.model(**single)
    with pytest.raises(InputError, match="3 images .or tiles of images. are encoded, and 2 cameras are named"):
        with prune(family.model, Resize(), 0.5, cameras=[CAMERAS[:1], CAMERAS[:1]]), torch.inference_mode():
            family.model(**single)
