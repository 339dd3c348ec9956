"""From a checkpoint in its original format to what is submitted: the commands of the README, on tiny stand-ins."""

import json

import pytest
from helpers import drivelmm_o1_files, originals, runs

from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.results.drivelmm_o1 import write_results
from prune2drive.tasks import coverage, evaluate

pytestmark = pytest.mark.slow  # whole runs


FIELDS = tuple(f"submission.{name}=x" for name in ("method", "team", "email", "institution", "country"))
FIELDS += ("submission.authors=[Ada,Alan]",)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    originals.drivemm(root / "DriveMM")
    originals.internvl_chat(root / "DriveLMMo1", lora="new")
    return root


@pytest.fixture(scope="module")
def drivelm(tmp_path_factory):
    """DriveLM's files, under ids such as the challenge's."""
    folder = tmp_path_factory.mktemp("DriveLM")
    MiniDrive(resolution=56, size=6).export(folder)
    file = folder / "v1_1_train_nus.json"
    scenes = json.loads(file.read_text())
    renamed = {
        f"{number:032x}": {**scene, "key_frames": {f"{number:032x}": frame for frame in scene["key_frames"].values()}}
        for number, scene in enumerate(scenes.values())
    }
    file.write_text(json.dumps(renamed))
    return folder


def run(folder, *overrides):
    evaluate.run(runs.configuration(f"folder={folder}", *runs.BARE, *overrides))
    return runs.read(folder, "metrics.json"), runs.rows(folder)


def vision():
    return "model.vision_config={" + ", ".join(f"{name}: {size}" for name, size in originals.VISION.items()) + "}"


def test_drivemm_on_drivelm(models, drivelm, tmp_path):
    model = ("model=drivemm", f"model.checkpoint={models}/DriveMM", vision())
    data = ("dataset=drivelm", f"dataset.root={drivelm}", "dataset.questions=v1_1_train_nus.json")
    metrics, rows = run(tmp_path, *model, *data, "pruner=tfps", "submission=drivelm", *FIELDS)
    assert metrics["tokens/visual_full"] == 96 and metrics["tokens/visual_kept"] == 6 * 2
    submitted = json.loads((tmp_path / "submission.json").read_text())["results"]
    assert [(each["id"], each["answer"]) for each in submitted] == [(row.id, row.answer) for row in rows]
    assert metrics["coverage/objects_n"] > 0


@pytest.mark.parametrize(("options", "full"), [(("model.tiles=6",), 16), (("dataset.stitched=false",), 24)])
def test_drivelmm_o1_on_its_benchmark(options, full, models, tmp_path):
    """Stitched as the benchmark shows it, in three tiles and a thumbnail of 4 tokens each; and as six images."""
    drivelmm_o1_files.write(
        tmp_path, *(drivelmm_o1_files.item(f"s_f_{n}", f"What is {n}?", final_answer="B) A van.") for n in (1, 2, 3))
    )
    drivelmm_o1_files.draw(tmp_path, "s_f", size=(96, 54))
    model = ("model=drivelmm_o1", f"model.checkpoint={models}/DriveLMMo1")
    data = ("dataset=drivelmm_o1", f"dataset.root={tmp_path}")
    metrics, rows = run(tmp_path / "run", *model, *data, "pruner=tfps", "ratios.keep=0.5", *options)
    assert metrics["tokens/visual_full"] == full and {"mcq_accuracy", "score"} <= metrics.keys()
    assert {len(row.kept_counts) for row in rows} == {6} and all(row.steps for row in rows)
    file, answered, failed = write_results(tmp_path / "run")
    assert (answered, failed) == (3, 0) and json.loads(file.read_text())[0]["idx"] == "s_f_1"


@pytest.mark.parametrize("pruner", ["random", "uniform", "fastv"])
def test_every_method_prunes_a_stitched_picture(pruner, models, tmp_path):
    drivelmm_o1_files.write(tmp_path, drivelmm_o1_files.item("s_f_2", final_answer="B) A van."))
    drivelmm_o1_files.draw(tmp_path, "s_f", size=(96, 54))
    model = ("model=drivelmm_o1", f"model.checkpoint={models}/DriveLMMo1", "model.tiles=12")
    options = ("dataset=drivelmm_o1", f"dataset.root={tmp_path}", f"pruner={pruner}", "ratios.keep=0.5")
    _, rows = run(tmp_path / "run", *model, *options)
    counts = rows[0].full_counts
    assert rows[0].kept_counts.keys() == counts.keys()
    if pruner != "fastv":  # which shares one budget between the cameras
        assert rows[0].kept_counts == {camera: int(count / 2 + 0.5) for camera, count in counts.items()}


def test_the_coverage_of_drivemm(models, drivelm, tmp_path):
    model = ("model=drivemm", f"model.checkpoint={models}/DriveMM", vision())
    data = ("dataset=drivelm", f"dataset.root={drivelm}", "dataset.questions=v1_1_train_nus.json", "task=coverage")
    found = coverage.run(runs.configuration(f"folder={tmp_path}", *runs.BARE, *model, *data))
    assert 0 <= found <= 1
