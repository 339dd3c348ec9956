import json
import re
import runpy
import sys

import pytest
from helpers import documents
from PIL import Image, ImageChops

pytestmark = pytest.mark.slow  # whole runs


EXAMPLES = documents.REPOSITORY / "examples"
PICTURE = documents.REPOSITORY / "docs/images/kept_tokens.png"


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_prune_any_model_keeps_a_tenth_of_the_tokens_and_draws_the_readmes_picture(script, tmp_path):
    said = script("prune_any_model.py", "--picture", "kept.png")
    assert "kept 36 of 384 visual tokens" in said and len(re.findall(r"CAM_\w+ +\[", said)) == 6
    drawn, shown = (Image.open(file).convert("RGB") for file in (tmp_path / "kept.png", PICTURE))
    assert drawn.size == shown.size
    different = ImageChops.difference(drawn, shown).convert("L").point(lambda value: 255 * (value > 40))
    assert sum(different.histogram()[1:]) < 0.01 * drawn.width * drawn.height


def test_a_pipeline_is_pruned_and_says_what_it_kept(script):
    said = script("transformers_pipeline.py", "--questions", "3", "--batch-size", "2", "--keep", "0.25")
    assert said.count("all tokens") == said.count("pruned  ") == 3
    assert said.endswith("kept 25.0% of the visual tokens (mean, n = 3)\n")


def test_the_comparison_with_openvino_has_the_same_budget_for_every_image(script, tmp_path):
    script("compare_with_openvino.py", "ours", "out")
    lines = [json.loads(line) for line in (tmp_path / "out/prompts.jsonl").read_text().splitlines()]
    budgets = {name: {len(kept) for line in lines for kept in line[name]["kept"]} for name in lines[0] if "," in name}
    assert len(lines) == 20 and len(budgets) == 6
    assert all(counts == {16 if name.endswith("75") else 6} for name, counts in budgets.items())
    by_default, halves = (
        [line[f"{name}, 90"]["kept"] for line in lines] for name in ("both by default", "OpenVINO's rule")
    )
    assert by_default != halves
    assert all(sum(token < 32 for token in kept) == 3 for line in halves for kept in line)


def test_add_a_method_compares_it_with_tfps(script):
    said = script("add_a_method.py", "--questions", "10")
    assert re.search(r"LocalContrast +\+\d\.\d+ .*\n +T-FPS +\+\d\.\d+ .*\n +difference +[+-]\d\.\d+", said)


def test_search_ratios_finds_some_and_they_are_used(cli, tmp_path, no_charts):
    search, use = (
        words for block in documents.blocks(EXAMPLES / "search_ratios.md", "sh") for words in documents.commands(block)
    )
    few = [f"+search.splits.{name}.size=2" for name in ("search", "val", "test")]
    code, said, _ = cli(*search[2:], *few, "trainer.enable_progress_bar=false")
    assert code == 0 and "trial 2 (3/3)" in said
    assert {"search.md", "report.html", "winner.yaml"} <= {
        file.name for file in (tmp_path / "outputs/sweeps/short").iterdir()
    }
    assert cli(*use[2:], "dataset.size=2", "trainer.enable_progress_bar=false")[0] == 0
    (run,) = (tmp_path / "outputs/minidrive2").glob("**/metrics.json")
    assert json.loads(run.read_text())["tokens/visual_kept"] == 36


def test_the_notebook_shows_kept_tokens():
    cells = json.loads((EXAMPLES / "show_kept_tokens.ipynb").read_text())["cells"]
    assert all(not cell.get("outputs") for cell in cells), "clear the notebook's outputs"
    names: dict = {"__name__": "notebook"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "show_kept_tokens.ipynb", "exec"), names)
    assert {name: sum(map(len, kept.values())) for name, kept in names["kept"].items()} == {
        "TFPS": 36,
        "UniformPruner": 36,
        "FastV": 36,
        "front-heavy": 37,
    }
