"""What an adapter makes of a checkpoint in its original format: prompt, pixels and answers as the original's."""

import json

import numpy as np
import pytest
import torch
from helpers import originals
from PIL import Image

from prune2drive import prune
from prune2drive.data.dataset import multi_view_prompt
from prune2drive.errors import InputError
from prune2drive.models.conversion import __main__ as command
from prune2drive.models.internvl import InternVL
from prune2drive.models.llava_onevision import LlavaOnevision
from prune2drive.mosaic import Mosaic
from prune2drive.pruning import TFPS
from prune2drive.sample import Sample

GREEDY = {"max_new_tokens": 4, "do_sample": False}
CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
MOSAIC = Mosaic([CAMERAS[:3], CAMERAS[3:]])


@pytest.fixture(scope="module")
def drivemm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals") / "DriveMM"
    originals.drivemm(folder)
    return folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals") / "DriveLMMo1"
    originals.internvl_chat(folder, lora="new")
    return folder


def photos(width=160, height=90):
    pixels = np.random.default_rng(0).integers(0, 256, (6, height, width, 3), dtype=np.uint8)
    return {camera: Image.fromarray(pixels[index]) for index, camera in enumerate(CAMERAS)}


def six_views(question="what is moving ?"):
    return Sample("a", photos(), question, multi_view_prompt(CAMERAS, question))


def test_the_prompt_of_drivemm(drivemm):
    """System, user and assistant headers of Llama 3, the system prompt of LLaVA-NeXT, six numbered images."""
    adapter = LlavaOnevision(str(drivemm), vision_config=originals.VISION)
    token = "<|reserved_special_token_0|>"
    images = " ".join(f"{number}: {token}" for number in range(1, 7))
    expected = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision "
        "assistant. You are able to understand the visual content that the user provides, and assist the user with a "
        "variety of tasks using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        f"{images}. These six images are the front view, front left view, front right view, back view, back left view "
        "and back right view of the ego vehicle.what is moving ?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert adapter.chat(six_views().prompt) == expected
    ids = adapter.collate([six_views()]).inputs["input_ids"][0]
    assert (ids == adapter.processor.tokenizer.bos_token_id).sum() == 1
    other = LlavaOnevision(str(drivemm), vision_config=originals.VISION, system="the view").chat("what ?")
    assert other.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nthe view<|eot_id|>")


def test_turns_are_rendered_one_by_one(tmp_path):
    """A template that opens every rendering with a preamble repeats it, as in the original's own code."""
    originals.drivemm(tmp_path / "m")
    template = "{{ bos_token }}[day]" + originals.LLAMA3.replace(
        "{% if loop.first %}{% set content = bos_token + content %}{% endif %}", ""
    )
    (tmp_path / "m" / "chat_template.jinja").write_text(template)
    text = LlavaOnevision(str(tmp_path / "m"), vision_config=originals.VISION).chat("what ?")
    assert text.count("[day]") == 3 and text.count("<|begin_of_text|>") == 1
    assert text.endswith("what ?<|eot_id|>[day]<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_the_pixels_of_drivemm(drivemm):
    """A photo on a gray square, scaled with bicubic filtering, from 0..255 to -1..1."""
    prompts = LlavaOnevision(str(drivemm), vision_config=originals.VISION).collate([six_views()])
    found = prompts.inputs["pixel_values"].reshape(6, 3, 56, 56)
    for index, photo in enumerate(photos().values()):
        square = Image.new("RGB", (160, 160), (127, 127, 127))
        square.paste(photo, (0, 35))
        scaled = np.asarray(square.resize((56, 56), Image.Resampling.BICUBIC), dtype=np.float32)
        expected = torch.from_numpy((scaled / 255 - 0.5) / 0.5).permute(2, 0, 1)
        assert torch.allclose(found[index], expected, atol=1e-5)


@pytest.mark.parametrize(("template", "part"), [("internvl2_5", "<|im_end|>\n"), ("Hermes-2", "<|im_end|>")])
def test_the_prompt_of_an_internvl_chat_model(template, part, tmp_path):
    originals.internvl_chat(tmp_path / "m", template=template)
    adapter = InternVL(str(tmp_path / "m"), system="the view")
    asked = f"<|im_start|>system\nthe view{part}<|im_start|>user\n<IMG_CONTEXT>\nwhat ?{part}<|im_start|>assistant\n"
    ids = adapter.collate([one()]).inputs["input_ids"][0]
    text = adapter.processor.tokenizer.decode(ids)
    assert adapter.chat("<image>\nwhat ?") == asked and text.startswith("<s><|im_start|>")
    assert f"user\n<img>{'<IMG_CONTEXT>' * 4}</img>\nwhat ?{part}" in text
    assert "书生" in InternVL(str(tmp_path / "m")).chat("what ?")


def one():
    return Sample("a", {"F": next(iter(photos().values()))}, "?", "<image>\nwhat ?")


def test_the_pixels_of_an_internvl_chat_model(chat):
    """The whole picture as one square, normalized as ImageNet's."""
    prompts = InternVL(str(chat)).collate([one()])
    scaled = np.asarray(one().images["F"].resize((56, 56), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    expected = (scaled - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert np.allclose(prompts.inputs["pixel_values"][0].permute(1, 2, 0).numpy(), expected, atol=1e-4)


def test_six_images_and_one_picture(chat):
    adapter = InternVL(str(chat), tiles=6)
    six = InternVL(str(chat)).collate([six_views()]).token_maps[0]
    assert six.counts == dict.fromkeys(CAMERAS, 4)
    picture = adapter.collate([Sample("a", photos(), "?", "<image>\nwhat ?", mosaic=MOSAIC)]).token_maps[0]
    assert set(picture.counts) == set(CAMERAS) and sum(picture.counts.values()) == 16  # three tiles and a thumbnail


@pytest.mark.parametrize("kind", ["drivemm", "chat"])
def test_answers_of_the_original_and_the_converted_folder_are_the_same(kind, request, tmp_path):
    source = request.getfixturevalue(kind)
    family = LlavaOnevision if kind == "drivemm" else InternVL
    options = {"vision_config": originals.VISION} if kind == "drivemm" else {}
    originals.write_json(tmp_path / "vision.json", originals.VISION)
    given = ["--vision-config", str(tmp_path / "vision.json")] if kind == "drivemm" else []
    assert command.main([str(source), str(tmp_path / "native"), *given]) == 0
    before, after = family(str(source), **options), family(str(tmp_path / "native"))
    samples = [six_views(), six_views("what is the ego vehicle ?")]
    mine, theirs = before.collate(samples), after.collate(samples)
    assert all(torch.equal(mine.inputs[name], theirs.inputs[name]) for name in mine.inputs)
    answers = []
    for adapter, prompts in ((before, mine), (after, theirs)):
        with prune(adapter.model, TFPS(layer=1), keep=0.5, token_map=prompts.token_maps) as trace:
            answers.append(adapter.generate(prompts, **GREEDY))
        assert trace.kept_tokens == [sum(trace.token_maps[0].counts.values()) // 2] * 2
    assert answers[0] == answers[1]


def test_nothing_is_read_from_the_weights_before_it_is_asked_for(drivemm, tmp_path):
    import shutil

    folder = shutil.copytree(drivemm, tmp_path / "m")
    for file in folder.glob("*.safetensors"):
        file.write_bytes(b"")
    adapter = LlavaOnevision(str(folder), vision_config=originals.VISION)
    adapter.collate([six_views()])
    with pytest.raises(InputError, match="cannot be read as .safetensors weights"):
        adapter.load()


def test_a_template_that_is_not_there(drivemm, tmp_path):
    import shutil

    folder = shutil.copytree(drivemm, tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat_template"):
        LlavaOnevision(str(folder), vision_config=originals.VISION)


def test_a_tokenizer_without_the_images_tokens(chat, tmp_path):
    import shutil

    folder = shutil.copytree(chat, tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"] = {
        key: token for key, token in settings["added_tokens_decoder"].items() if token["content"] != "<IMG_CONTEXT>"
    }
    originals.write_json(folder / "tokenizer_config.json", settings)
    with pytest.raises(InputError, match="the tokenizer has no <IMG_CONTEXT>"):
        InternVL(str(folder))


@pytest.mark.parametrize("content", [None, "[1]", "{"])
def test_a_damaged_vision_config(content, drivemm, tmp_path, capsys):
    file = tmp_path / "vision.json"
    if content:
        file.write_text(content)
    assert command.main([str(drivemm), str(tmp_path / "out"), "--vision-config", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
