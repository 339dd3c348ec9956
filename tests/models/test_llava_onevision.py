import json
import shutil
from os.path import expanduser
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from helpers import checkpoints, runs
from safetensors.torch import load_file, save_file

from prune2drive.errors import InputError
from prune2drive.minidrive import architecture
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import MiniDriveModel
from prune2drive.minidrive.tokenizer import CHAT_TEMPLATE
from prune2drive.models import hub
from prune2drive.models.llava_onevision import LlavaOnevision

GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit(file: Path, **changes) -> None:
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def samples():
    dataset = MiniDrive(size=4)
    return [dataset[index] for index in range(4)]


def test_a_checkpoint_answers_as_the_model_that_was_saved(saved):
    memory, disk = runs.Lively(), LlavaOnevision(str(saved))
    expected, found = memory.collate(samples()), disk.collate(samples())
    assert expected.inputs.keys() == found.inputs.keys()
    assert all(torch.equal(expected.inputs[name], found.inputs[name]) for name in expected.inputs)
    assert disk.model.dtype == torch.float32 and not disk.model.training
    answers = disk.generate(found, **GREEDY)
    assert answers == memory.generate(expected, **GREEDY)
    assert len({answer.text for answer in answers}) > 1


def test_the_checkpoint_that_comes_with_training(tmp_path):
    """The layout of MiniDrive's own checkpoint, in half precision."""
    sizes = runs.Lively().sizes
    architecture.save(architecture.build_model(sizes), sizes, tmp_path)
    adapter = MiniDriveModel(str(tmp_path), dtype="bfloat16")
    assert adapter.model.dtype == torch.bfloat16
    assert len(adapter.generate(adapter.collate(samples()), **GREEDY)) == 4


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", torch.bfloat16), ("auto", torch.float32)])
def test_dtype(saved, dtype, expected):
    assert LlavaOnevision(str(saved), dtype=dtype).model.dtype == expected


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention(saved, attention):
    model = LlavaOnevision(str(saved), attention=attention).model
    assert model.config.get_text_config()._attn_implementation == attention


def test_nothing_is_loaded_before_it_is_asked_for(saved, monkeypatch):
    monkeypatch.setattr(LlavaOnevision, "load", lambda self: pytest.fail("the model was loaded"))
    adapter = LlavaOnevision(str(saved))
    assert adapter.text_config.num_hidden_layers == 4
    adapter.collate(samples()[:1])


@pytest.mark.parametrize("kind", [LlavaOnevision, MiniDriveModel])
def test_a_folder_below_the_home_folder(kind, saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    adapter = kind(f"~/{saved.name}")
    assert adapter.chat("hi") == "<|user|>hi<|assistant|>" and adapter.model.dtype == torch.float32


def test_a_relative_folder(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    for where in (saved.name, f"./{saved.name}"):
        assert LlavaOnevision(where).chat("hi") == "<|user|>hi<|assistant|>"


PLACES = {
    "tokenizer_config.json": "chat_template",
    "processor_config.json": "chat_template",
    "chat_template.jinja": None,
}
PLACES["chat_template.json"] = "chat_template"


@pytest.mark.parametrize("name", PLACES)
def test_where_a_chat_template_can_be(name, copied):
    (copied / "chat_template.jinja").unlink()
    file = copied / name
    if PLACES[name]:
        content = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(content | {"chat_template": CHAT_TEMPLATE}))
    else:
        file.write_text(CHAT_TEMPLATE)
    assert LlavaOnevision(str(copied)).chat("hi") == "<|user|>hi<|assistant|>"


def refused(folder, message, **options):
    """What building or loading says, in one line."""
    with pytest.raises(InputError, match=message) as caught:
        LlavaOnevision(str(folder), **options).load()
    assert "\n" not in str(caught.value) and f"model.checkpoint={expanduser(folder)}" in str(caught.value)


@pytest.mark.parametrize("where", ["/nowhere", "./nowhere", "~/nowhere"])
def test_a_missing_folder(where):
    refused(where, "no such folder")


@pytest.mark.parametrize("where", ["nowhere", "nobody/nothing"])
def test_a_hub_id_without_network_is_refused_at_once(where, monkeypatch, caplog):
    """Neither in the cache nor reachable: the hub is asked once, with a time limit, and nothing is logged."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    asked = []

    def head(url, timeout):
        asked.append(timeout)
        raise ConnectionError("no network")

    monkeypatch.setattr(hub, "get_session", lambda: SimpleNamespace(head=head))
    refused(where, "neither a folder nor in the local cache, .* cannot be reached.*`hf download`")
    assert asked == [hub.PATIENCE] and not caplog.records


def test_a_hub_id_in_the_cache_needs_no_network(saved, tmp_path, monkeypatch):
    """The layout of the hub's own cache, as a download leaves it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--a--b", "0" * 40
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    adapter = LlavaOnevision("a/b")
    assert adapter.chat("hi") == "<|user|>hi<|assistant|>" and adapter.model.dtype == torch.float32


def test_a_folder_without_config(tmp_path):
    refused(tmp_path, f"{tmp_path}/config.json: no such file; give the folder of a checkpoint")


def test_no_chat_template(copied):
    (copied / "chat_template.jinja").unlink()
    refused(copied, "neither processor nor tokenizer has a chat template")


def test_another_family(copied):
    edit(copied / "config.json", model_type="llava", architectures=["LlavaForConditionalGeneration"])
    refused(copied, "a llava model, expected llava_onevision")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_missing_or_damaged_part(name, content, copied):
    file = copied / name
    file.unlink() if content is None else file.write_text(content)
    refused(copied, f"{file}: no" if name == "config.json" else "cannot be read as ")


def test_a_damaged_processor_config(copied):
    (copied / "processor_config.json").write_text("{")
    refused(copied, "cannot be read as ")


@pytest.mark.parametrize("size", [0, 4, 100, 100_000])
def test_weights_that_were_not_downloaded_whole(size, copied):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(copied, "cannot be read as LlavaOnevisionForConditionalGeneration")


def test_no_weights(copied):
    (copied / "model.safetensors").unlink()
    refused(copied, "cannot be read as LlavaOnevisionForConditionalGeneration .*model.safetensors")


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights, next(name for name in sorted(weights) if "layers.1.mlp.down_proj" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_missing_weight(copied):
    """Transformers would draw it at random, and warn."""
    change_weights(copied, lambda weights, name: weights.pop(name))
    refused(copied, r"layers\.1\.mlp\.down_proj\.weight")


def test_a_weight_of_another_shape(copied):
    change_weights(copied, lambda weights, name: weights.update({name: torch.zeros(3, 3)}))
    refused(copied, "cannot be read as LlavaOnevisionForConditionalGeneration")


@pytest.mark.parametrize("kind", [LlavaOnevision, MiniDriveModel])
@pytest.mark.parametrize(("option", "value"), [("dtype", "fp16"), ("attention", "flash")])
def test_values_that_do_not_exist_are_refused_at_once(kind, option, value, saved):
    choices = {"dtype": "auto, float32, bfloat16, float16", "attention": "sdpa, eager, flash_attention_2"}
    with pytest.raises(InputError, match=f"^model.{option}={value}: choose from {choices[option]}$"):
        kind(str(saved), **{option: value})
