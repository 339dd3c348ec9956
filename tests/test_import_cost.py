"""What `import prune2drive` brings along: a framework to prune with, no model class, search or trainer."""

import subprocess
import sys

import pytest

HEAVY = ("hydra", "lightning", "nni", "optuna", "torch._dynamo", "wandb")
LIST = "import sys, prune2drive; prune2drive.prune, prune2drive.Sample; print(*sys.modules)"


@pytest.mark.slow
def test_importing_the_package_imports_nothing_heavy():
    run = subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    assert "prune2drive.pruning.methods.tfps" in modules
    heavy = [name for name in modules if name in HEAVY or name.startswith(tuple(f"{root}." for root in HEAVY))]
    models = [name for name in modules if name.startswith("transformers.models.") and ".modeling_" in name]
    assert not heavy + models
