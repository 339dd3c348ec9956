"""Evaluations inside the test process: small, offline, in a folder of the test's."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from omegaconf import DictConfig

from prune2drive.metrics import language
from prune2drive.minidrive import tiny
from prune2drive.minidrive.tiny import Tiny
from prune2drive.report import charts
from prune2drive.results.run_folder import RunFolder
from prune2drive.sample import Prediction
from prune2drive.tasks import evaluate
from prune2drive.tasks.config import compose

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"
LIVELY = "model._target_=helpers.runs.Lively"
BARE = ("generation.max_new_tokens=3", "latency.questions=0", "pictures=0", "explorer=0", "logger=none", "full=false")
SMALL = ("dataset.size=8", *BARE)
QUIET = ("trainer.enable_progress_bar=false", "trainer.accelerator=cpu")

WEIGHTS: dict[tuple, torch.nn.Module] = {}

torch.set_num_threads(1)


class Lively(Tiny):
    """The tiny model with larger weights: each of its answers depends on every token that is left."""

    loaded: ClassVar[int] = 0

    def load(self):
        Lively.loaded += 1
        model = super().load()
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if weights.ndim > 1 and "embed_tokens" not in name:
                    weights.mul_(4)
        return model


class Speaking(Lively):
    """One whose answers have ends, at tokens that they often reach."""

    def load(self):
        model = super().load()
        model.generation_config.eos_token_id = [*range(40, 60)]
        return model


class Varied(Lively):
    """One whose generation config keeps it from saying anything twice."""

    def load(self):
        model = super().load()
        model.generation_config.repetition_penalty = 50.0
        return model


def configuration(*overrides: str) -> DictConfig:
    """What `run.py` would be given; the parts that Hydra reads are in HydraConfig."""
    return compose(["model=tiny", *QUIET, *overrides])


def run(folder: Path, *overrides: str) -> float:
    """`python run.py ...` in this process: eight questions, three tokens an answer, unless told otherwise."""
    return evaluate.run(configuration(f"folder={folder}", LIVELY, *SMALL, *overrides))


def ask(folder: Path, files: Path, *overrides: str) -> float:
    """The same with all questions of a folder of DriveLM files."""
    dataset = ("dataset=drivelm", f"dataset.root={files}")
    return evaluate.run(configuration(f"folder={folder}", LIVELY, *dataset, *BARE, *overrides))


@contextmanager
def without_java() -> Iterator[None]:
    """Starting Java for the scores takes longer than a run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(language.shutil, "which", lambda name: None)
        yield


@contextmanager
def weights_remembered() -> Iterator[None]:
    """The tiny model's weights depend on its sizes and seed alone."""
    build = tiny.build_model

    def built(sizes):
        key = (sizes, torch.initial_seed())
        if key not in WEIGHTS:
            WEIGHTS[key] = build(sizes)
        return copy.deepcopy(WEIGHTS[key])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tiny, "build_model", built)
        yield


class Blank:
    """A figure without anything on it."""

    @staticmethod
    def savefig(file, format, **_):
        file.write("<svg></svg>") if format == "svg" else file.touch()


@contextmanager
def without_charts() -> Iterator[None]:
    """Drawing a page's charts takes longer than all else about a search whose runs are made up."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(charts, "_figure", lambda chart, colours: nullcontext(Blank))
        yield


def resume(folder: Path, *overrides: str) -> float:
    return run(folder, f"resume={folder}", *overrides)


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def rows(folder: Path) -> list[Prediction]:
    return list(RunFolder(folder).rows())


def answers(folder: Path) -> dict[str, str | None]:
    return {row.id: row.answer for row in rows(folder)}


def without_costs(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics in which the machine has no part."""
    costs = ("time/", "memory/")
    return {key: value for key, value in metrics.items() if not key.removeprefix("full/").startswith(costs)}
