"""The model that comes with the package: it answers, and its answers depend on which tokens are kept."""

import json
from collections import Counter

import pytest
import torch
from helpers import runs
from hydra import compose, initialize_config_dir
from safetensors import safe_open
from transformers import LlavaOnevisionForConditionalGeneration

from prune2drive.minidrive.clip_questions import CLIP_KINDS
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import MiniDriveModel, packaged
from prune2drive.minidrive.questions import VERSIONS
from prune2drive.tasks import process_cache

QUESTIONS = 40
ASK = ("model=minidrive2", "dataset.split=val", f"dataset.size={QUESTIONS}", "generation.max_new_tokens=32")


def right(folder, *overrides):
    """How many of the first validation questions are answered to the letter."""
    runs.evaluate.run(runs.configuration(f"folder={folder}", *runs.BARE, *ASK, *overrides))
    return sum(row.answer == row.reference for row in runs.rows(folder))


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_small_and_in_the_hubs_layout(version):
    folder = packaged(version)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 25e6
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}
    assert json.loads((folder / "processor_config.json").read_text())["processor_class"] == "LlavaOnevisionProcessor"
    _, found = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]


def test_version_two_reads_renumbered_positions_as_well_as_kept_ones(tmp_path):
    scores = [
        right(tmp_path / positions, "ratios.keep=0.25", f"positions={positions}", "pruner=tfps")
        for positions in ("keep", "renumber")
    ]
    assert min(scores) > 0.8 * QUESTIONS and abs(scores[0] - scores[1]) <= 3


def test_it_fits_the_datasets_default_resolution():
    adapter, dataset = MiniDriveModel(), MiniDrive("val", size=10)
    side = adapter.config.vision_config.image_size
    assert dataset[0].image_sizes == dict.fromkeys(dataset.cameras, (side, side))


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"version": 2}, ""),
        ({"version": 1}, "compare, small"),
        ({"version": 2, "times": 2}, ", ".join(sorted(CLIP_KINDS))),
    ],
)
def test_questions_that_the_packaged_model_never_saw_are_warned_of_once(options, kinds, caplog):
    adapter = MiniDriveModel(version=options["version"])
    dataset = MiniDrive("val", size=24, cameras=["CAM_FRONT"], times=options.get("times", 1))
    for _ in range(2):
        adapter.collate([dataset[at] for at in range(len(dataset))])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == bool(kinds) and all(
        f"not trained on questions of kind {kinds} and will" in line for line in said
    )


@pytest.mark.parametrize(
    ("found", "given", "taken"),
    [
        ({"avx2": True, "avx512_bf16": False}, "auto", "float32"),
        ({"avx512_bf16": True}, "auto", "auto"),
        ({"neon": True, "bf16": True}, "auto", "auto"),
        ({}, "bfloat16", "bfloat16"),
    ],
)
def test_its_dtype_is_one_that_the_cpu_computes_in(monkeypatch, found, given, taken):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert MiniDriveModel(dtype=given).options["dtype"] == taken


@pytest.fixture
def images_encoded_once():
    yield "prefix_cache=memory"
    process_cache.clear()


@pytest.mark.slow
def test_version_one_still_answers(tmp_path):
    assert (
        right(tmp_path, "model=minidrive", "dataset=minidrive", "pruner=tfps", "ratios.keep=0.25") >= 0.85 * QUESTIONS
    )


@pytest.mark.slow
def test_farthest_points_hold_up_where_random_ones_do_not(tmp_path, images_encoded_once):
    dataset = MiniDrive("val", size=QUESTIONS)
    answers = Counter((dataset.kind(at), dataset.row(at).reference) for at in range(QUESTIONS))
    kinds = {kind for kind, _ in answers}
    commonest = sum(max(n for (of, _), n in answers.items() if of == kind) for kind in kinds)
    full = right(tmp_path / "full", "pruner=none", images_encoded_once)
    tfps = right(tmp_path / "tfps", "pruner=tfps", "ratios.keep=0.1", images_encoded_once)
    random = right(tmp_path / "random", "pruner=random", "ratios.keep=0.1", images_encoded_once)
    learned = right(tmp_path / "learned", "pruner=learned", "ratios.keep=0.1", images_encoded_once)
    assert full >= 0.85 * QUESTIONS > commonest
    assert min(tfps, learned) > random + 0.05 * QUESTIONS


def test_it_is_what_runs_by_default():
    with initialize_config_dir(str(runs.CONFIGS), version_base="1.3"):
        cfg = compose("config")
    built = {name: cfg[name]._target_.rpartition(".")[2] for name in ("model", "dataset", "pruner", "ratios")}
    assert (cfg.model.version, cfg.dataset.version) == (2, 2)
    assert built == {"model": "MiniDriveModel", "dataset": "MiniDrive", "pruner": "TFPS", "ratios": "Uniform"}
    assert (cfg.dataset.split, cfg.ratios.keep, cfg.model.checkpoint) == ("test", 0.1, None)
