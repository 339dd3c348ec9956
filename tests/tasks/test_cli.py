"""`run.py` as its users meet it."""

import json
import os
import re
from pathlib import Path

import pytest
from helpers import runs
from hydra.errors import ConfigCompositionException
from hydra.utils import get_method

from prune2drive.errors import InputError
from prune2drive.minidrive.tiny import Tiny

pytestmark = pytest.mark.slow  # whole runs


SMALL = ("model=tiny", *runs.BARE, "trainer.enable_progress_bar=false")


@pytest.fixture
def unloadable(monkeypatch):
    """No model may be loaded."""
    monkeypatch.setattr(Tiny, "load", lambda self: pytest.fail("a model was loaded"))


def conversation(**changes) -> str:
    image = "nuscenes/samples/CAM_FRONT/a.jpg"
    asked = {"id": "a_b_0", "image": [image], "conversations": [{"from": "human", "value": "What is there?"}]}
    return json.dumps([asked | changes])


@pytest.fixture
def questions(tmp_path):
    """Writes a question file, its image missing."""

    def write(text: str) -> Path:
        folder = tmp_path / "drivelm"
        folder.mkdir()
        (folder / "test_llama.json").write_text(text)
        return folder

    return write


WRONG_OPTIONS = {
    "pruner.layer=99": "pruner.layer=99: the model's decoder has layers 0 to 3",
    "pruner.layer=-1": "layer=-1",
    "pruner.layer=first": "layer=first",
    "pruner=fastv pruner.layer=0": "FastV: layer=0 .*set layer to 1 or higher",
    "pruner.scope=foo": "pruner.scope=foo: choose from per_camera, over_time, global",
    "pruner=uniform +pruner.scope=global": "pruner.scope=global: choose from per_camera",
    "pruner.metric=foo": "pruner.metric=foo: choose from cosine, l1, l2",
    "pruner.mode=foo": "pruner.mode=foo: choose from farthest, nearest",
    "pruner.start=foo": "pruner.start=foo: choose from isolated",
    "pruner.dtype=foo": "dtype='foo'",
    "ratios.keep=0": r"ratios.keep = 0 is outside \(0, 1\]",
    "ratios.keep=1.5": r"ratios.keep = 1.5 is outside \(0, 1\]",
    "ratios.keep=much": r"ratios.keep = much is outside \(0, 1\]",
    "ratios=adaptive": "python run.py -m search=tpe model=tiny dataset=minidrive2",
    "positions=foo": "positions=foo: choose from null, keep, renumber",
    "rounding=foo": "rounding=foo: choose from nearest, seed",
    "on_error=foo": "on_error=foo: choose from fail, skip",
    "images=none": "images=none: choose from shown, grey",
    "batch_size=0": "batch_size=0: use a whole number, 1 or more",
    "batch_size=many": "batch_size=many",
    "num_workers=-1": "num_workers=-1",
    "latency.warm_up=-1": "latency.warm_up=-1",
    "pictures=-1": "pictures=-1",
    "seed=foo": "seed=foo",
    "generation.max_new_tokens=0": "generation: `max_new_tokens` must be greater than 0",
    "generation.max_new_tokens=foo": "generation: ",
    "+generation.temprature=0.5": "generation.temprature: `generate` has no such option",
    "dataset.size=0": "dataset.size=0",
    "dataset.size=foo": "dataset|MiniDrive",
    "dataset.split=foo": "foo",
    "dataset.difficulty=foo": "foo",
    "+dataset.cameras=[CAM_TOP]": "dataset.cameras: no camera 'CAM_TOP' in MiniDrive; it has CAM_FRONT",
    "dataset=drivelm": "dataset.root is not set.*dataset.root=",
    "dataset=drivelm dataset.root=/nowhere": "/nowhere: no such folder; set dataset.root",
    "dataset=drivelm dataset.root=/nowhere dataset.slice=[3]": r"dataset.slice=\[3\]: give two numbers",
    "dataset=drivelm dataset.root=/nowhere dataset.split=train": "dataset.split=train: choose from search, val, test",
    "dataset=drivelm dataset.root=/nowhere dataset.split_fractions.test=0.5": "dataset.split_fractions=.*sum to 1.25",
    "dataset=drivelmm_o1 metrics=drivelm": "dataset.root is not set",
    "dataset=drivelmm_o1 metrics=drivelm dataset.root=/nowhere": "/nowhere/DriveLMMo1_TEST.json: no such file",
    "model.attention=foo": "model.attention=foo: choose from sdpa, eager",
    "model=llava_onevision model.checkpoint=/nowhere": "model.checkpoint=/nowhere: no such folder",
    "trainer.accelerator=foo": "accelerator='foo'|invalid accelerator",
    "trainer.accelerator=mps": "Trainer",
    "trainer.devices=0": "Trainer",
    "trainer.strategy=foo": "Trainer",
    "task=coverage task.per=scene": "task.per=scene: choose from question, frame",
}


@pytest.mark.parametrize("options", WRONG_OPTIONS)
def test_a_wrong_option_is_one_line_before_a_model_is_loaded(options, unloadable, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=WRONG_OPTIONS[options]) as refused:
        cfg = runs.configuration("folder=run", *runs.BARE, *options.split(" "))
        get_method(cfg.task._target_)(cfg)
    assert "\n" not in str(refused.value)


REFUSED = {
    "resume=nowhere": "resume=nowhere: no such folder",
    "resume=.": ".*run.json: no such file; .* is no run folder to resume",
    "ratios.keep=0": r"ratios.keep = 0 is outside \(0, 1\]: it is the share of tokens retained, e.g. 0.1",
    "hydra.run.dir=/proc/nowhere": "hydra.run.dir=/proc/nowhere: cannot be made",
    "-m hydra.sweep.dir=/proc/nowhere": "hydra.sweep.dir=/proc/nowhere: cannot be made",
}


@pytest.mark.parametrize("options", REFUSED)
def test_the_command_ends_with_one_line(options, refusal, unloadable):
    assert re.match(REFUSED[options], refusal(*SMALL, *options.split(" ")))


WRONG_FILES = {
    "{": "test_llama.json: not valid JSON at line 1, column 2",
    "[]": "test_llama.json: holds no question",
    conversation(conversations=[{"from": "human", "value": " "}]): "question a_b_0 is empty",
    conversation(image=[]): "entry 0",
    conversation(): "drivelm/nuscenes/samples/CAM_FRONT/a.jpg; set dataset.images",
}


@pytest.mark.parametrize("content", WRONG_FILES)
def test_a_wrong_file_is_one_line_that_names_it(content, refusal, unloadable, questions):
    said = refusal(*SMALL, "dataset=drivelm", f"dataset.root={questions(content)}")
    assert re.search(WRONG_FILES[content], said), said


def test_an_unknown_camera_of_a_file(refusal, unloadable, questions):
    folder = questions(conversation())
    said = refusal(*SMALL, "dataset=drivelm", f"dataset.root={folder}", "dataset.cameras=CAM_TOP")
    assert re.fullmatch("dataset.cameras: no camera 'CAM_TOP' in .*; it has CAM_FRONT", said), said


MISTYPED = {
    "ratios.kep=0.3": "ratios.kep: no such option; ratios has keep; did you mean ratios.keep?",
    "keep=0.3": "keep: no such option; there are seed, .*, prefix_cache; did you mean ratios.keep?",
    "dataset.cameras=[X]": "dataset.cameras: no such option; dataset has split, .*, seed",
    "pruner=uniform pruner.scope=global": "pruner.scope: no such option; pruner has layer",
    "ratios.keep.CAM_FRONT=0.3": "ratios.keep.CAM_FRONT: no such option; ratios.keep has no options",
    "pruner=foo": "pruner=foo: no such choice; pruner has cdpruner, .*, vispruner",
    "task=covrage": "task=covrage: no such choice; task has benchmark, .*, train.*; did you mean task=coverage?",
    "hydra/launcher=jobli": "hydra/launcher=jobli: no such choice; .*; did you mean hydra/launcher=joblib?",
    "foo=1": "foo: no such option; there are seed, .*, prefix_cache",
    "pruner=none,tfps": r"pruner=none,tfps: has several values; add -m to run each of them",
    "ratios.keep=[": r"ratios.keep=\[: cannot be read as name=value",
    "~ratios.kep": "Could not delete from config. 'ratios.kep' does not exist.",
    "--config-dir nowhere": "Additional config directory '.*nowhere' not found",
    "task=train_minidrive2 task.cow=1": "task.cow: no such option; task has .*, recipe, .*",  # keys that are numbers
    "-m pruner=none,tfps ratios.kep=0.3": "ratios.kep: no such option; .*; did you mean ratios.keep?",
    "ratios.kep=0.1,0.3 -m": "ratios.kep: no such option; .*; did you mean ratios.keep?",
    "-m search=tpe search.trails=3": "search.trails: no such option; .*; did you mean search.trials?",
}


@pytest.mark.parametrize("options", MISTYPED)
def test_a_mistyped_option_is_one_line_that_names_the_others(options, refusal, unloadable):
    said = refusal(*SMALL, *options.split(" "))
    assert re.fullmatch(f"{MISTYPED[options]}.*", said), said


def test_hydra_full_error_shows_where_an_option_is_refused(cli, unloadable, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException):
        cli(*SMALL, "foo=1")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_ratios_for_another_camera(refusal, unloadable, tmp_path):
    file = tmp_path / "ratios.yaml"
    file.write_text("ratios: {CAM_FRONT: 0.5}")
    said = refusal(*SMALL, "ratios=adaptive", f"ratios.file={file}")
    assert said == f"{file}: no keep ratio for camera CAM_FRONT_LEFT: keep ratios are given for CAM_FRONT"


def test_a_run_in_a_fresh_folder(cli, tmp_path):
    code, said, errors = cli(*SMALL, "dataset.size=2", "pruner=random", "ratios.keep=0.25")
    assert (code, errors) == (0, "")
    (folder,) = (tmp_path / "outputs/minidrive2/tiny/random").iterdir()
    assert {"run.json", "metrics.json", "predictions.jsonl", "report.html", ".hydra"} <= {
        f.name for f in folder.iterdir()
    }
    assert runs.read(folder, "metrics.json")["tokens/CAM_FRONT/kept"] == 16
    assert "tiny · minidrive2 · random · uniform" in said and "2 of 2 questions answered" in said
    assert str(folder / "report.html") in said and "its answers are noise" in said
    assert [file.name for file in tmp_path.iterdir()] == ["outputs"]
    command = runs.read(folder, "run.json")["command"]
    assert command.startswith("run.py ") and command.endswith("dataset.size=2 pruner=random ratios.keep=0.25")

    rows = (folder / "predictions.jsonl").read_bytes()
    code, _, errors = cli(*SMALL, "dataset.size=2", "pruner=random", "ratios.keep=0.25", f"resume={folder}")
    assert (code, errors) == (0, "")
    assert (folder / "predictions.jsonl").read_bytes() == rows
    assert len(list((tmp_path / "outputs/minidrive2/tiny/random").iterdir())) == 1


def test_a_multirun_leaves_a_folder_for_each(cli, tmp_path):
    code, said, errors = cli(*SMALL, "dataset.size=2", "-m", "pruner=none,tfps", "ratios.keep=0.5")
    assert (code, errors) == (0, "")
    (sweep,) = (tmp_path / "outputs/sweeps").iterdir()
    jobs = sorted(folder for folder in sweep.iterdir() if folder.name.isdecimal())
    assert [job.name for job in jobs] == ["0", "1"]
    for job, pruner in zip(jobs, ("none", "tfps"), strict=True):
        assert runs.read(job, "run.json")["choices"]["pruner"] == pruner
        assert len(runs.rows(job)) == 2
    kept = [runs.read(job, "metrics.json")["tokens/visual_kept"] for job in jobs]
    assert kept == [384, 192]
    table = (sweep / "comparison.md").read_text()
    assert all(f"pruner={name}" in table for name in ("none", "tfps"))
    assert table.endswith("budget: tokens after the last cut\n")
    assert (sweep / "charts/score_against_kept.png").is_file() and "max-t" in (sweep / "comparison.html").read_text()


def test_run_json_has_the_command_as_it_was_written(cli, tmp_path):
    assert cli(*SMALL, "dataset.size=1", "-m", "pruner=random", "hydra.sweep.dir=out")[0] == 0
    command = runs.read(tmp_path / "out/0", "run.json")["command"]
    assert command.endswith("dataset.size=1 -m pruner=random hydra.sweep.dir=out")


def test_a_folder_of_ones_own_adds_choices(cli, tmp_path):
    """A dataset, a pruner and a model in `--config-dir`, none of which replaces ours."""
    for name, text in {
        "pruner/mine": "_target_: prune2drive.pruning.RandomPruner\nlayer: 2\nseed: ${seed}",
        "dataset/mine": "_target_: prune2drive.minidrive.dataset.MiniDrive\nresolution: 112\nsize: 2",
        "model/mine": "defaults: [tiny]",
    }.items():
        file = tmp_path / "own" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    own = ("--config-dir", "own", "model=mine", "dataset=mine", "pruner=mine", "metrics=minidrive")
    code, said, errors = cli(*SMALL, *own, "hydra.run.dir=out")
    assert (code, errors) == (0, "") and "mine · mine · mine · uniform" in said
    assert runs.read(tmp_path / "out", "run.json")["config"]["pruner"]["layer"] == 2
    code, _, errors = cli(*SMALL, "--config-dir", "own", "pruner=tfp")
    assert code == 2 and ", mine, " in errors and "did you mean pruner=tfps?" in errors


def test_a_multirun_of_coverage_shows_what_was_measured(cli, tmp_path):
    code, said, errors = cli(*SMALL, "dataset.size=2", "-m", "task=coverage", "ratios.keep=0.1,0.5")
    assert (code, errors) == (0, "") and "2 of 2 questions looked at" in said
    (sweep,) = (tmp_path / "outputs/sweeps").iterdir()
    header, _, *rows = [line for line in (sweep / "comparison.md").read_text().splitlines() if line.startswith("|")]
    assert header == "| job | coverage | budget | kept | layer avg | FLOPs |" and len(rows) == 2
    found = [float(row.split("|")[2].split("[")[0]) for row in rows]
    assert found == pytest.approx(
        [runs.read(sweep / name, "metrics.json")["coverage/objects"] for name in "01"], rel=0.01
    )


def test_help_explains_each_group_with_an_example(cli):
    code, said, errors = cli("--help")
    assert (code, errors) == (0, "")
    groups = {folder.name for folder in runs.CONFIGS.iterdir() if folder.is_dir()} - {"hydra"}
    for group in groups:
        examples = re.findall(rf"^ +{group}=(\S+) ", said, re.MULTILINE)
        assert examples, f"no example for {group}"
        assert examples[0].startswith("<") or (runs.CONFIGS / group / f"{examples[0]}.yaml").is_file()
        for name in (file.stem for file in (runs.CONFIGS / group).glob("*.yaml")):
            assert re.search(rf"^{group}: .*\b{name}\b", said, re.MULTILINE), f"{group}={name} is not listed"
