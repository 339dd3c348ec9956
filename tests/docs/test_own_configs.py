"""docs/your-own-configs.md, followed to the letter."""

import json
import re
import shlex
import sys

import pytest
from helpers import documents, runs

from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import packaged

pytestmark = pytest.mark.slow  # whole runs


PAGE = documents.REPOSITORY / "docs/your-own-configs.md"
SHORT = [*runs.QUIET, "logger=none", "full=false", "pictures=0", "latency.questions=0", "generation.max_new_tokens=4"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The page's files, and data that its dataset reads."""
    for block in documents.blocks(PAGE, "python", "yaml"):
        file = tmp_path / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as target:
            target.write(block.text)
    rows = []
    for sample in (MiniDrive(size=10)[index] for index in (0, 1)):
        images = {camera: f"{sample.frame}_{camera}.png" for camera in sample.images}
        (tmp_path / "data").mkdir(exist_ok=True)
        for camera, image in sample.images.items():
            image.save(tmp_path / "data" / images[camera])
        named = {"id": sample.id, "frame": sample.frame, "question": sample.question, "answer": sample.reference}
        rows.append({**named, "images": images})
    (tmp_path / "data/questions.json").write_text(json.dumps(rows))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_drive", raising=False)
    return tmp_path


def test_the_tree_on_the_page_is_what_its_blocks_make(project):
    tree = next(documents.blocks(PAGE, "text")).text
    shown = re.findall(r"([\w/]+\.\w+)$", tree, re.MULTILINE)
    made = [file for file in project.rglob("*") if file.suffix in (".py", ".yaml")]
    assert len(shown) == len(made) == 5 and all(any(str(file).endswith(name) for name in shown) for file in made)


def test_own_choices_run_beside_ours(project, cli):
    one, several = (words for block in documents.blocks(PAGE, "sh") for words in documents.commands(block))
    code, _, error = cli(*one[1:], "model=tiny", "dataset.size=2", *SHORT)
    assert code == 0, error
    (metrics,) = project.glob("outputs/minidrive2/tiny/local_contrast/*/metrics.json")
    assert json.loads(metrics.read_text())["tokens/visual_kept"] == 96
    code, _, error = cli(*several[1:], f"model.checkpoint={shlex.quote(str(packaged()))}", *SHORT)
    assert code == 0, error
    kept = {
        json.loads(file.read_text())["tokens/visual_kept"] for file in project.glob("outputs/sweeps/*/*/metrics.json")
    }
    assert kept == {36}


def test_help_lists_own_choices(project, cli):
    _, said, _ = cli("--config-dir", "configs", "--help")
    assert "local_contrast" in said and "my_questions" in said and "tfps" in said
