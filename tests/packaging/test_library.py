"""The library without the framework: what `pip install prune2drive` brings is enough to prune a model."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import runs

pytestmark = pytest.mark.slow  # starts interpreters

LIBRARY = {"torch", "transformers", "numpy", "pillow", "pyyaml", "safetensors"}
ALONE = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more: None if name.partition(".")[0] in {absent} else found(name, *more)
"""
PRUNES = """
import torch, yaml
from transformers import LlamaConfig, LlamaForCausalLM
import prune2drive
from prune2drive.integrations.named_pruner import build_pruner
from prune2drive.pruning import Adaptive

sizes = dict(vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2)
model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
cameras = {"CAM_FRONT": (2, 18), "CAM_BACK": (19, 35)}
shown = prune2drive.TokenMap.from_spans(cameras, 40)
open("ratios.yaml", "w").write("ratios: {CAM_FRONT: 0.5, CAM_BACK: 0.25}")
with torch.no_grad(), prune2drive.prune(model, build_pruner("tfps"), Adaptive("ratios.yaml"), token_map=shown) as trace:
    model.generate(torch.randint(0, 50, (1, 40)), max_new_tokens=2)
print({camera: len(kept) for camera, kept in trace.kept[0].items()})
try:
    prune2drive.evaluate
except prune2drive.InputError as error:
    print(error)
"""


def test_the_library_needs_little_and_pins_nothing():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((runs.REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {re.match(r"[\w-]+", text)[0] for text in project["dependencies"]} == LIBRARY
    assert not any("==" in text for text in project["dependencies"])
    assert "prune2drive[models]" in project["optional-dependencies"]["eval"]


def test_lmms_eval_is_beside_the_framework_and_finds_its_model():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    project = tomllib.loads((runs.REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert any(text.startswith("lmms-eval") for text in extras["lmms"])
    assert not any("lmms" in text for name in extras if name != "lmms" for text in extras[name])
    module, _, name = project["entry-points"]["lmms_eval.models"]["prune2drive"].partition(":")
    file = importlib.util.find_spec(module).origin
    assert f"def {name}()" in Path(file).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("argument", [[], ["--help"]])
def test_a_model_is_pruned_and_the_framework_says_what_it_needs(argument, tmp_path):
    modules = {"hydra", "omegaconf", "lightning", "pytorch_lightning", "wandb", "nni", "optuna", "nuscenes", "rich"}
    modules |= {"matplotlib", "torchmetrics", "pycocoevalcap", "sqlalchemy", "psutil", "pyquaternion", "shapely"}
    alone = ALONE.format(absent=sorted(modules))
    program = "from prune2drive.tasks import command; command()" if argument else PRUNES
    done = subprocess.run(
        [sys.executable, "-c", alone + program, *argument],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    missing = "hydra is not installed: runs and evaluations need pip install 'prune2drive[eval]'"
    if argument:
        assert (done.returncode, done.stderr) == (2, f"error: {missing}\n")
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["{'CAM_FRONT': 8, 'CAM_BACK': 4}", missing]
