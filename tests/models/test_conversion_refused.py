"""Damaged checkpoints, and variants that are not converted: one line each, nothing written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import originals
from safetensors.torch import load_file, save_file

from prune2drive.errors import InputError
from prune2drive.models.conversion import __main__ as command
from prune2drive.models.conversion import load_internvl_chat, load_llava_next, open_original


@pytest.fixture
def spoiled(llava, tmp_path) -> Path:
    return Path(shutil.copytree(llava[0], tmp_path / "copy"))


@pytest.fixture
def spoiled_chat(chats, tmp_path) -> Path:
    return Path(shutil.copytree(chats["new"][0], tmp_path / "copy"))


def edit(file: Path, **changes) -> None:
    content = json.loads(file.read_text()) | changes
    originals.write_json(file, {key: value for key, value in content.items() if value is not None})


def refused(folder, message, load=None):
    with pytest.raises(InputError, match=message) as caught:
        (load or (lambda where: load_llava_next(where, originals.VISION)))(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["mm_vision_tower", "mm_projector_type", "hidden_size", "num_hidden_layers", "vocab_size"]
)
def test_a_missing_field(name, spoiled):
    edit(spoiled / "config.json", **{name: None})
    refused(spoiled, rf"config\.json: field '{name}' is missing", lambda where: load_llava_next(where))


@pytest.mark.parametrize("part", ["llm_config", "vision_config", "downsample_ratio"])
def test_a_missing_field_of_a_chat_model(part, spoiled_chat):
    edit(spoiled_chat / "config.json", **{part: None})
    refused(spoiled_chat, rf"config\.json: field '{part}' is missing", load_internvl_chat)


@pytest.mark.parametrize(
    ("name", "message"),
    [(None, "field 'template' is missing"), ("phi3-chat", "template is 'phi3-chat', expected internvl2_5 or")],
)
def test_the_name_of_a_chat_template(name, message, spoiled_chat):
    edit(spoiled_chat / "config.json", template=name)
    refused(spoiled_chat, message, lambda where: open_original(where).chat_template)


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads"])
def test_a_missing_field_of_a_part(name, spoiled_chat):
    content = json.loads((spoiled_chat / "config.json").read_text())
    del content["llm_config"][name]
    edit(spoiled_chat / "config.json", **content)
    refused(spoiled_chat, rf"config\.json: field llm_config\.'{name}' is missing", load_internvl_chat)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mm_projector_type", "linear", "mm_projector_type is 'linear', expected 'mlp2x_gelu'"),
        ("mm_patch_merge_type", "flat", "mm_patch_merge_type is 'flat', expected 'spatial_unpad'"),
        ("model_type", "llava_mpt", "model_type llava_mpt, expected llava_llama or llava_qwen"),
    ],
)
def test_a_variant_of_llava_next(name, value, message, spoiled):
    edit(spoiled / "config.json", **{name: value})
    refused(spoiled, message)


def test_an_unknown_tower(spoiled):
    edit(spoiled / "config.json", mm_vision_tower="openai/clip-vit-large-patch14-336")
    refused(spoiled, "mm_vision_tower is 'clip-vit-large-patch14-336', expected .*vision_config=", load_llava_next)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ps_version": "v1"}, "ps_version is 'v1', expected 'v2'"),
        ({"model_type": "internvl"}, "model_type internvl, expected internvl_chat"),
    ],
)
def test_a_variant_of_internvl_chat(changes, message, spoiled_chat):
    edit(spoiled_chat / "config.json", **changes)
    refused(spoiled_chat, message, load_internvl_chat)


def test_an_unknown_decoder(spoiled_chat):
    content = json.loads((spoiled_chat / "config.json").read_text())
    content["llm_config"]["architectures"] = ["Phi3ForCausalLM"]
    edit(spoiled_chat / "config.json", **content)
    refused(spoiled_chat, "architectures is 'Phi3ForCausalLM', expected InternLM2ForCausalLM or", load_internvl_chat)


@pytest.mark.parametrize("size", [0, 7, 200, 5000])
def test_a_truncated_shard(size, spoiled):
    file = sorted(spoiled.glob("*.safetensors"))[1]
    file.write_bytes(file.read_bytes()[:size])
    refused(spoiled, rf"{file.name}: cannot be read as \.safetensors weights")


def test_a_shard_that_is_not_there(spoiled):
    file = sorted(spoiled.glob("*.safetensors"))[1]
    file.unlink()
    refused(spoiled, rf"{file.name}: named by model.safetensors.index.json, but not there")


def test_no_weights_at_all(spoiled):
    for file in spoiled.glob("model*"):
        file.unlink()
    refused(spoiled, "no weights; expected model.safetensors, pytorch_model.bin")


def change(folder, act):
    """Changes the weights, as one file without an index."""
    weights = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    for file in folder.glob("model*"):
        file.unlink()
    act(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_key_that_fits_nothing(spoiled):
    change(spoiled, lambda weights: weights.update({"model.wings.0.weight": torch.zeros(2)}))
    refused(spoiled, r"model\.safetensors: weight model\.wings\.0\.weight has no place in a model of the LLaVA-NeXT")


def test_a_missing_weight(spoiled):
    change(spoiled, lambda weights: weights.pop("model.layers.1.mlp.down_proj.weight"))
    refused(spoiled, r"1 weights are missing, first model\.language_model\.layers\.1\.mlp\.down_proj\.weight")


def test_a_weight_of_another_shape(spoiled):
    change(spoiled, lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}))
    refused(spoiled, "norm.weight|mismatched|size")


def test_half_an_adapter(spoiled_chat):
    key = "language_model.base_model.model.model.layers.0.attention.wo.lora_B.default.weight"
    change(spoiled_chat, lambda weights: weights.pop(key))
    refused(
        spoiled_chat, r"model\.safetensors: LoRA .*wo\.lora_A\.default\.weight has no other half", load_internvl_chat
    )


def test_an_adapter_that_does_not_fit(spoiled_chat):
    key = "language_model.base_model.model.model.layers.0.attention.wo.lora_B.default.weight"
    change(spoiled_chat, lambda weights: weights.update({key: torch.zeros(5, 4)}))
    refused(spoiled_chat, r"LoRA \(5, 4\) x \(4, 64\) does not fit .*wo\.weight \(64, 64\)", load_internvl_chat)


def test_a_joined_matrix_of_another_shape(spoiled_chat):
    content = json.loads((spoiled_chat / "config.json").read_text())
    content["llm_config"]["num_key_value_heads"] = 4
    edit(spoiled_chat / "config.json", **content)
    refused(spoiled_chat, "a wqkv of 128 rows, expected 192 from llm_config", load_internvl_chat)


def test_pickled_weights(spoiled, llava):
    change(spoiled, lambda weights: None)
    torch.save(load_file(spoiled / "model.safetensors"), spoiled / "pytorch_model.bin")
    (spoiled / "model.safetensors").unlink()
    found, expected = load_llava_next(spoiled, originals.VISION).state_dict(), llava[1].state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


class Attack:
    def __reduce__(self):
        return (exit, (3,))


def test_pickled_code_is_refused(spoiled):
    for file in spoiled.glob("model*"):
        file.unlink()
    torch.save({"model.norm.weight": Attack()}, spoiled / "pytorch_model.bin")
    refused(spoiled, r"pytorch_model\.bin: cannot be read as \.bin weights")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_that_is_no_checkpoint(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert command.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert str(tmp_path / "config.json") in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_format_that_is_not_converted(tmp_path, capsys):
    originals.write_json(tmp_path / "config.json", {"model_type": "llava"})
    assert command.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert (
        "model_type llava is no format that is converted here: llava_llama, llava_qwen, internvl_chat"
        in capsys.readouterr().err
    )
