import inspect
import json
from pathlib import Path

import pytest
import wandb
from helpers import (
    checkpoints,
    goldenview_files,
    nuscenes_qa_files,
    nuscenes_tables,
    originals,
    runs,
    stock,
    stsbench_files,
)
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from prune2drive.cameras import CAMERAS
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.pruning import Adaptive
from prune2drive.pruning.ratios import SEARCHED_RATIOS
from prune2drive.pruning.token_scorer import TokenScorer
from prune2drive.tasks.components import Components

FILES = sorted(file.relative_to(runs.CONFIGS).with_suffix("") for file in runs.CONFIGS.glob("*/**/*.yaml"))
SEARCHED = sorted(SEARCHED_RATIOS[1].glob("*.yaml"))
CHOICES = [(str(file.parent), file.name) for file in FILES if file.parts[0] != "hydra"]
NOTHING = [(group, "none") for group in ("logger", "judge", "submission", "prefix_cache")]
PARTS = ("model", "dataset", "metrics", "judge", "pruner", "ratios", "trainer", "submission")
STOCK = {
    "llava_onevision": "llava_onevision",
    "llava_onevision_7b": "llava_onevision",
    "internvl3_1b": "internvl",
    "internvl3_8b": "internvl",
    "llava_1_5_7b": "llava",
    "qwen2_5_vl_3b": "qwen2_5_vl",
    "qwen2_5_vl_7b": "qwen2_5_vl",
    "qwen3_vl_4b": "qwen3_vl",
    "smolvlm": "smolvlm",
}
CAMERA_RATIOS = "ratios: {CAM_FRONT: 0.5, CAM_BACK: 0.1}\nprovenance: {by: hand}\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[tuple[str, str], list[str]]:
    """What some configs need on disk, as the overrides that name it."""
    folder = tmp_path_factory.mktemp("files")
    checkpoints.save(folder / "checkpoint")
    MiniDrive(resolution=28, size=2).export(folder / "drivelm")
    item = {"idx": "s_f_1", "question": "What is near?", "final_answer": "A van.", "steps": ""}
    (folder / "DriveLMMo1_TEST.json").write_text(json.dumps([item]))
    nuscenes_qa_files.write(folder / "nuscenes_qa")
    goldenview_files.write(folder / "goldenview")
    stsbench_files.write(folder / "stsbench")
    (folder / "ratios.yaml").write_text(CAMERA_RATIOS)
    TokenScorer(8, 4).write(folder / "scorer.safetensors", {"layer": 1, "channels": 8, "depth": 4})
    originals.drivemm(folder / "drivemm")
    originals.internvl_chat(folder / "drivelmm_o1", lora="new")
    originals.internvl_chat(folder / "mini_internvl_drivelm", decoder="qwen2", template="Hermes-2")
    stock_models = {}
    for name, family in STOCK.items():
        if not (folder / family).exists():
            stock.save(family, folder / family)
        stock_models["model", name] = [f"model.checkpoint={folder}/{family}"]
    return stock_models | {
        ("model", "drivemm"): [f"model.checkpoint={folder}/drivemm"],
        ("model", "drivelmm_o1"): [f"model.checkpoint={folder}/drivelmm_o1"],
        ("model", "mini_internvl_drivelm"): [f"model.checkpoint={folder}/mini_internvl_drivelm"],
        ("model", "minidrive"): [f"model.checkpoint={folder}/checkpoint"],
        ("dataset", "drivelm"): [f"dataset.root={folder}/drivelm"],
        ("dataset", "drivelmm_o1"): [f"dataset.root={folder}", "metrics=drivelm"],
        ("dataset", "goldenview"): [f"dataset.root={folder}/goldenview"],
        ("dataset", "stsbench"): [f"dataset.root={folder}/stsbench"],
        ("dataset", "nuscenes_qa"): [
            f"dataset.root={folder}/nuscenes_qa",
            f"dataset.nuscenes={folder}/nuscenes_qa",
            f"dataset.version={nuscenes_tables.VERSION}",
        ],
        ("pruner", "learned"): [f"pruner.file={folder}/scorer.safetensors"],
        ("ratios", "adaptive"): [f"ratios.file={folder}/ratios.yaml"],
        ("judge", "openai"): ["judge.base_url=http://localhost:1/v1", "judge.model=m", f"judge.cache={folder}/cache"],
        ("submission", "drivelm"): [f"submission.{name}=x" for name in ("method", "team", "email", "institution")]
        + ["submission.authors=[Ada,Alan]", "submission.country=Land"],
    }


def accepted(target: type) -> set[str]:
    """The keyword arguments of a class, those included that it hands on to its bases."""
    names: set[str] = set()
    for base in inspect.getmro(target):
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            names |= {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
            if all(each.kind is not each.VAR_KEYWORD for each in parameters):
                break
    return names - {"self"}


def test_there_is_a_config_of_each_group():
    assert {group for group, _ in CHOICES} >= {"task", "logger", *PARTS}


def nodes(node):
    if OmegaConf.is_dict(node):
        yield node
        for name in node:
            if not OmegaConf.is_missing(node, name):
                yield from nodes(node[name])


@pytest.mark.slow
@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_composes_names_what_its_class_takes_and_builds(group, name, files, tmp_path):
    options = [f"folder={tmp_path}", f"{group}={name}", *files.get((group, name), ())]
    if group == "experiment":
        options += files.get(("dataset", runs.configuration(*options).names.dataset), ())
    cfg = runs.configuration(*options)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    targets = [node for node in nodes(cfg.get(group)) if "_target_" in node]
    if group == "task":
        targets = targets[1:]  # the first is the task's function, which is given the whole configuration
    assert targets or group in ("task", "experiment", "search") or (group, name) in NOTHING
    for node in targets:
        target = get_class(node._target_)
        extra = set(inspect.signature(wandb.init).parameters) if "wandb" in target.__module__ else set()
        if target.__module__.startswith("prune2drive.data."):
            extra |= set(inspect.signature(Subset).parameters)
        assert {str(key) for key in node} - {"_target_", "_convert_"} <= accepted(target) | extra
    if group in PARTS and (group, name) not in NOTHING:
        assert isinstance(instantiate(cfg[group]), get_class(cfg[group]._target_))


@pytest.mark.parametrize(("dataset", "metric"), [("minidrive", ExactMatch), ("drivelm", DriveLMScore)])
def test_metrics_follow_the_dataset(dataset, metric, tmp_path):
    cfg = runs.configuration(f"folder={tmp_path}", f"dataset={dataset}")
    assert isinstance(instantiate(cfg.metrics), metric)
    other = runs.configuration(f"folder={tmp_path}", f"dataset={dataset}", "metrics=drivelm")
    assert isinstance(instantiate(other.metrics), DriveLMScore)


@pytest.mark.parametrize("metrics", ["drivelm", "drivelmm_o1", "minidrive"])
def test_every_metric_is_given_the_judge(metrics, files, tmp_path):
    options = [f"folder={tmp_path}", f"metrics={metrics}"]
    assert instantiate(runs.configuration(*options).metrics).judge_id is None
    judged = runs.configuration(*options, "judge=openai", *files["judge", "openai"]).metrics
    assert instantiate(judged).judge_id["model"] == "m"


def test_seeds_follow_the_run(tmp_path):
    cfg = runs.configuration(f"folder={tmp_path}", "dataset=drivelm", "pruner=random", "seed=7")
    assert (cfg.pruner.seed, cfg.dataset.seed) == (7, 7)
    cfg = runs.configuration(f"folder={tmp_path}", "pruner=tfps", "seed=7")
    assert (cfg.pruner.seed, cfg.dataset.seed) == (7, 7)


@pytest.mark.parametrize("file", SEARCHED, ids=lambda file: file.stem)
def test_searched_ratios_say_where_they_come_from(file):
    policy = Adaptive(str(file))
    known = policy.provenance
    assert f"{known['model']}_{known['dataset']}" == file.stem and known["commit"] and known["splits"]["search"]["size"]
    assert policy.ratios(known["cameras"]).keys() == set(known["cameras"])


def test_searched_ratios_are_the_users_then_the_packages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [f"folder={tmp_path}", "model=minidrive2", "ratios=adaptive"]
    shipped = instantiate(runs.configuration(*options).ratios)
    assert shipped.path == SEARCHED_RATIOS[1] / "minidrive2_minidrive2.yaml"
    with pytest.raises(InputError, match=r"outputs/searched_ratios/tiny_minidrive.yaml is missing") as raised:
        Adaptive(name="tiny_minidrive", command="search")
    assert "\n" not in str(raised.value)
    path = Path("outputs/searched_ratios/minidrive2_minidrive2.yaml")
    path.parent.mkdir(parents=True)
    path.write_text(CAMERA_RATIOS)
    cfg = runs.configuration(*options)
    assert instantiate(cfg.ratios).ratios(("CAM_BACK", "CAM_FRONT")) == {"CAM_BACK": 0.1, "CAM_FRONT": 0.5}
    weighted = runs.configuration(f"folder={tmp_path}", "model=minidrive2", "ratios=dynamic", "ratios.weights=adaptive")
    assert instantiate(weighted.ratios).provenance == {"by": "hand"}
    with pytest.raises(InputError, match="minidrive2_minidrive2.yaml: no keep ratio for camera CAM_FRONT_LEFT"):
        Components.build(cfg)


def test_ratios_by_hand(tmp_path):
    options = [f"folder={tmp_path}", "ratios=per_camera"]
    front_heavy = Components.build(runs.configuration(*options)).policy.ratios(CAMERAS)
    assert sum(front_heavy.values()) / len(CAMERAS) == pytest.approx(0.1)
    changed = runs.configuration(*options, "ratios.keep={CAM_FRONT: 0.3, CAM_BACK: 1}")
    assert instantiate(changed.ratios).ratios(CAMERAS) == front_heavy | {"CAM_FRONT": 0.3, "CAM_BACK": 1.0}
    with pytest.raises(InputError, match="no keep ratio for camera CAM_BACK:"):
        Components.build(runs.configuration(*options, "~ratios.keep.CAM_BACK"))


def test_a_shared_budget_is_checked_before_a_model_is_loaded(tmp_path):
    options = [f"folder={tmp_path}", "ratios=dynamic"]
    with pytest.raises(InputError, match="weight for unknown camera CAM_UP"):
        Components.build(runs.configuration(*options, "ratios.weights={CAM_UP: 1}"))
    with pytest.raises(InputError, match="scope=global FastV makes one pool"):
        Components.build(runs.configuration(*options, "pruner=fastv", "pruner.scope=global"))
    (tmp_path / "ratios.yaml").write_text(CAMERA_RATIOS)
    searched = ["ratios.weights=adaptive", f"ratios.file={tmp_path}/ratios.yaml"]
    assert instantiate(runs.configuration(*options, *searched).ratios).provenance == {"by": "hand"}


def test_offline_by_default(tmp_path):
    assert runs.configuration(f"folder={tmp_path}").logger.offline is True
