"""`task=export`: what a server of embeddings is given is what the pruned decoder sees, and nothing else is promised."""

import json
from pathlib import Path

import pytest
import torch
from helpers import families, runs
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from prune2drive.errors import InputError
from prune2drive.families.base import Decoder
from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
from prune2drive.pruning import TFPS, NoPruner, RandomPruner, Traits
from prune2drive.results.exported_prompts import ExportedPrompts
from prune2drive.tasks import export

SIZE = PER_FRAME + 2
OPTIONS = (runs.LIVELY, *runs.BARE, f"dataset.size={SIZE}", "ratios.keep=0.2", "task=export")
ANSWERED = ("task.answers=true", "generation.max_new_tokens=6")


def run(folder: Path, *overrides: str) -> float:
    return export.run(runs.configuration(f"folder={folder}", *OPTIONS, *overrides))


def listed(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "embeddings").iterdir()}


def answered_alone(folder: Path, **options) -> list[str]:
    """What a server would answer: the decoder's own `generate`, one prompt after another."""
    decoder = AutoModelForCausalLM.from_pretrained(folder / "decoder").eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "decoder")
    answers = []
    for entry in listed(folder):
        embeddings = load_file(folder / entry["file"])["prompt_embeds"][None]
        tokens = decoder.generate(inputs_embeds=embeddings, max_new_tokens=6, do_sample=False, **options)
        answers.append(tokenizer.decode(tokens[0], skip_special_tokens=True).strip())
    return answers


WAYS = {
    "picks shared by a frame": ("pruner=divprune",),
    "picks that hang on the question": ("pruner=cdpruner",),
    "merged before the LLM": ("pruner=visionzip",),
    "padded rows, every question by itself": ("pruner=divprune", "ratios=diversity", "batching=question"),
    "beams": ("pruner=divprune", "+generation.num_beams=2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_decoder_alone_answers_as_the_pruned_model(way, tmp_path):
    run(tmp_path, *ANSWERED, *WAYS[way])
    answers = [entry["answer"] for entry in listed(tmp_path)]
    assert answered_alone(tmp_path, num_beams=2 if way == "beams" else 1) == answers
    assert len(set(answers)) > 1


@pytest.mark.slow
def test_the_manifest_lists_every_prompt(tmp_path):
    kept = run(tmp_path, "pruner=divprune", "full=true")
    dataset, entries, whole = MiniDrive(size=SIZE), listed(tmp_path), listed(tmp_path / "full")
    assert [entry["id"] for entry in entries] == [entry["id"] for entry in whole] == dataset.ids
    assert kept == sum(entries[0]["kept"].values()) == 6 * 13
    for folder, each in ((tmp_path, entries), (tmp_path / "full", whole)):
        for index, entry in enumerate(each):
            tensors = load_file(folder / entry["file"])
            assert tensors["prompt_embeds"].shape == (entry["tokens"], 128)
            assert len(tensors["kept_positions"]) == entry["tokens"] and entry["answer"] is None
            assert entry["question"] == dataset.question(index) and entry["reference"] == dataset[index].reference
    for entry, full in zip(entries, whole, strict=True):
        few, every = load_file(tmp_path / entry["file"]), load_file(tmp_path / "full" / full["file"])
        assert torch.equal(few["prompt_embeds"], every["prompt_embeds"][few["kept_positions"]])
    assert not (tmp_path / "full" / "decoder").exists()


@pytest.mark.slow
def test_a_killed_export_goes_on(tmp_path, monkeypatch):
    options = ("pruner=divprune", "batch_size=4")
    run(tmp_path / "whole", *options)
    write, written = ExportedPrompts.write, []

    def until_killed(self, name, *tensors):
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, *tensors)

    with monkeypatch.context() as patched, pytest.raises((KeyboardInterrupt, SystemExit)):
        patched.setattr(ExportedPrompts, "write", until_killed)
        run(tmp_path / "killed", *options)
    done = [row.id for row in runs.rows(tmp_path / "killed")]
    assert done == written[:4] and not (tmp_path / "killed" / "prompts.jsonl").exists()
    decoder = tmp_path / "killed" / "decoder" / "model.safetensors"
    before, again = decoder.stat(), []
    with monkeypatch.context() as patched:
        patched.setattr(
            ExportedPrompts, "write", lambda self, name, *rest: again.append(name) or write(self, name, *rest)
        )
        run(tmp_path / "killed", *options, f"resume={tmp_path}/killed")
    assert again == MiniDrive(size=SIZE).ids[4:]
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert listed(tmp_path / "killed") == listed(tmp_path / "whole")
    assert decoder.stat().st_mtime_ns == before.st_mtime_ns


REFUSED = {
    "pruner=tfps": "TFPS prunes inside the LLM, at layer 1, and a server runs it whole; set pruner.layer=0",
    "pruner=fastv": "FastV prunes inside the LLM, at layer 2",
    "pruner=pyramiddrop": "PyramidDrop prunes inside the LLM, at layer 1, 2, 3",
    "pruner=staged": "Staged prunes inside the LLM, at layer",
    "pruner=pact pruner.layer=2": "PACT prunes inside the LLM, at layer",
    "pruner=tfps pruner.layer=0": "TFPS with positions=keep leaves gaps between positions, .*; set positions=renumber",
    "pruner=divprune positions=keep": "DivPrune with positions=keep leaves gaps",
    "pruner=divprune shard=1/2": "shard=1/2: task=export has no use for it",
    "pruner=divprune submission=drivelm": "submission: task=export writes prompts for a server; leave it out",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_a_server_cannot_do_is_refused_before_a_model_is_loaded(options, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.Lively, "load", lambda self: pytest.fail("the model was loaded"))
    with pytest.raises(InputError, match=REFUSED[options]) as refused:
        run(tmp_path, *options.split(" "))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("pruner", [NoPruner(), TFPS(layer=0)])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_positions_on_three_axes_are_refused(name, pruner):
    with pytest.raises(InputError, match=f"{name}_text has positions on 3 axes, and a server numbers"):
        export.check_expressible(pruner, "renumber", families.FAMILIES[name]().model.config.get_text_config())


class Weighing(RandomPruner):
    traits = Traits(positions="renumber", proportional_attention=True)


def test_what_embeddings_cannot_hold_is_refused(monkeypatch):
    config = families.FAMILIES["qwen2"]().model.config
    export.check_expressible(RandomPruner(layer=0), "renumber", config)
    with pytest.raises(InputError, match="Weighing weighs attention by the tokens that a slot stands for"):
        export.check_expressible(Weighing(layer=0), None, config)
    monkeypatch.setattr(export, "decoder_of", lambda config: Decoder((), adds_features="_add"))
    with pytest.raises(InputError, match="qwen2 adds vision features to later layers"):
        export.check_expressible(NoPruner(), None, config)
