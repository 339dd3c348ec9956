"""The search for keep ratios, `-m search=tpe`: trials on one split, finalists on a second, the verdict on a third.

The VLM stays as it is; only the ratios change (paper, section 3.3). A trial is an ordinary run of the search split.
"""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.pruning.selection import budget
from prune2drive.results.resume import SAME_ON_RESUME
from prune2drive.search.ledger import NOTES, Ledger
from prune2drive.search.objective import Objective
from prune2drive.search.page import write_search_report
from prune2drive.search.runner import Job, Jobs, Result
from prune2drive.search.samplers import Engine
from prune2drive.search.space import Space, make_space
from prune2drive.search.storage import default_storage
from prune2drive.search.study import Study, Trial
from prune2drive.tasks.components import Components, build, check_settings

log = logging.getLogger(__name__)

SPLITS = ("search", "val", "test")
LOGGER = "prune2drive.search.wandb.SearchLogger"
HEADLINE = {"score": 1.0}
LEAST = {"trials": 1, "finalists": 1, "random_draws": 0, "seed": 0}


@dataclass(frozen=True)
class Plan:
    """A search whose settings have all been looked at.

    Args:
        splits: of SPLITS, the dataset's options.
        questions: of SPLITS, what they hold: fingerprint and size.
        names: of the model and the dataset, as the configuration chooses them.
        tokens: of each camera, in the first sample.
        identity: what makes two trials comparable.
    """

    settings: DictConfig
    splits: dict[str, dict[str, Any]]
    questions: dict[str, dict[str, Any]]
    names: dict[str, str]
    tokens: Mapping[str, int]
    rounding: str
    identity: dict[str, Any]
    metric: Any
    engine: Engine
    space: Space
    objective: Objective


def search(settings: DictConfig, jobs: Jobs) -> Path:
    """Searches, or goes on with a search, and says whether it was worth it.

    Returns:
        the report.

    Raises:
        InputError: bad settings, before the first trial; or three trials in a row that failed alike.
        KeyboardInterrupt: after what was running is recorded.
    """
    from prune2drive.search.verdict import decide

    name, storage = _study(settings, jobs.folder)
    elsewhere = storage if storage != default_storage(jobs.folder) else None  # the folder may be moved
    notes = {"study": name, "storage": elsewhere}
    if not settings.resume:
        _check_folder(jobs.folder, notes)
    plan = make_plan(settings, jobs)
    logger = build(jobs.config.logger, _target_=LOGGER, save_dir=str(jobs.folder)) if jobs.config.logger else None
    study = Study(
        storage,
        name,
        plan.engine,
        plan.space,
        plan.objective,
        plan.identity,
        settings.trials,
        settings.seed,
        found=lambda number: jobs.finished(str(number)),
    )
    _check_runs(jobs.folder, study)
    write_atomically(jobs.folder / NOTES, [json.dumps(notes), "\n"])
    ledger, ended = Ledger(study.ledger), False
    try:
        study.ledger.set_user_attr("about", _about(plan))
        _say(f"study {name}: {len(study.finished)} of {settings.trials} trials done, kept in {storage}")
        _go_through(study, plan, jobs, lambda: logger.log_trials(ledger.points) if logger else None)
        report, ended = decide(plan, study, jobs), True
        return report
    except KeyboardInterrupt:
        best = "".join(f", the best is {each.number} with {each.objective:.4f}" for each in study.best(1))
        _say(f"interrupted after {len(study.finished)} trials{best}; to go on: {_resuming(jobs)}")
        raise
    finally:
        study.close()
        _say(f"what the search saw: {write_search_report(jobs.folder, ledger)}")
        if logger:
            logger.publish_search(ledger, ended)


def _check_folder(folder: Path, notes: Mapping[str, Any]) -> None:
    """Runs are known by their trials' numbers, so a folder is one study's, on however many machines.

    Raises:
        InputError: it is another one's.
    """
    try:
        held = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if held != notes:
        advice = f"go on with search.resume={folder}, or choose another hydra.sweep.dir for this one"
        raise InputError(f"{folder} holds another search: {advice}")


def _check_runs(folder: Path, study: Study) -> None:
    """A study that knows of no trial must find no runs, or it would take them for its own.

    Raises:
        InputError: it would.
    """
    if not study.ledger.get_trials(deepcopy=False) and any(folder.glob("*/run.json")):
        raise InputError(f"{folder} holds runs that this search does not know; choose another hydra.sweep.dir")


def make_plan(settings: DictConfig, jobs: Jobs) -> Plan:
    """Looks at everything that a search is made of, without loading a model.

    Raises:
        InputError: what it finds wrong.
    """
    for key, least in LEAST.items():
        if not isinstance(settings[key], int) or settings[key] < least:
            raise InputError(f"search.{key}={settings[key]}: use a whole number, {least} or more")
    at_once = settings.at_once
    if at_once is not None and (not isinstance(at_once, int) or at_once < 1):
        raise InputError(f"search.at_once={at_once}: use a whole number, 1 or more, or null")
    objective = Objective(_plain(settings.objective or HEADLINE), settings.penalty)
    engine = Engine(settings.engine, settings.sampler, settings.levels, _plain(settings.candidates))
    splits = {name: _plain(settings.splits[name]) for name in SPLITS}
    cfg, choices = jobs.compose(splits["search"])
    check_settings(cfg)
    if choices["task"] != "evaluate":
        raise InputError(f"task={choices['task']}: a search compares answers; leave the task out")
    parts = Components.build(cfg)
    if not parts.pruner.drops:
        raise InputError(f"pruner={choices['pruner']}: drops no tokens, so there are no ratios to search")
    if not hasattr(parts.metric, "by_question"):
        raise InputError(f"metrics={choices['metrics']}: has no score by question, which the verdict compares")
    datasets = {"search": parts.dataset}
    for name in ("val", "test"):
        datasets[name] = build(jobs.compose(splits[name])[0].dataset)
    _check_apart(datasets)
    questions = {name: {"fingerprint": data.fingerprint, "size": len(data)} for name, data in datasets.items()}
    resolved = _plain(cfg)
    identity = {part: resolved[part] for part in SAME_ON_RESUME if part != "ratios"}
    tokens = parts.adapter.collate([parts.dataset[0]]).token_maps[0].counts
    space = make_space(
        settings.space,
        parts.dataset.cameras,
        settings.keep,
        settings.low,
        settings.symmetric,
        tokens,
        kept_tokens(dict.fromkeys(tokens, settings.keep), tokens, cfg.rounding),
    )
    return Plan(
        settings=settings,
        splits=splits,
        questions=questions,
        names={key: str(choices[key]) for key in ("model", "dataset", "pruner")},
        tokens=tokens,
        rounding=cfg.rounding,
        identity={**identity, "questions": questions["search"]},
        metric=parts.metric,
        engine=engine,
        space=space,
        objective=objective,
    )


def kept_tokens(ratios: Mapping[str, float], tokens: Mapping[str, int], rounding: str) -> int:
    """How many tokens these ratios keep of a sample.

    Raises:
        InputError: none of a camera.
    """
    try:
        return sum(budget(ratio, tokens[camera], rounding) for camera, ratio in ratios.items())
    except ValueError as error:
        raise InputError(f"search.keep: {error}") from None


def _check_apart(datasets: Mapping[str, Any]) -> None:
    """The winner must not have been chosen on what it is tested on.

    Raises:
        InputError: two splits share a frame.
    """
    seen: dict[str, str] = {}
    for name, dataset in datasets.items():
        for frame in {dataset.frame(index) for index in range(len(dataset))}:
            if seen.setdefault(frame, name) != name:
                raise InputError(f"search.splits: {seen[frame]} and {name} share frame {frame}; they must not overlap")


def _study(settings: DictConfig, folder: Path) -> tuple[str, str]:
    """The study's name and its storage.

    Raises:
        InputError: the folder to resume holds none.
    """
    name, storage = settings.study, settings.storage
    if settings.resume:
        try:
            notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
            name, storage = notes["study"], storage or notes["storage"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"search.resume={settings.resume}: holds no search ({NOTES}: {error})") from error
    return name, storage or default_storage(folder)


def _about(plan: Plan) -> dict[str, Any]:
    """What the ledger's readers are told of the search beside what makes its trials comparable."""
    sizes = {name: each["size"] for name, each in plan.questions.items()}
    engine = {"engine": plan.engine.name, "sampler": plan.engine.sampler}
    return {**plan.names, **engine, "trials": plan.settings.trials, "questions": sizes}


def _go_through(study: Study, plan: Plan, jobs: Jobs, told: Callable[[], None]) -> None:
    """Evaluates until the study has enough trials; `told` is called whenever it has heard of some."""
    began, done = time.monotonic(), 0
    told()
    while asked := study.ask(jobs.at_once):
        try:
            results = jobs.run([Job(str(trial.number), plan.splits["search"], trial.ratios) for trial in asked])
        except KeyboardInterrupt:
            for trial in asked:
                metrics = jobs.finished(str(trial.number))
                study.give_up(trial) if metrics is None else study.tell(trial, metrics)
            raise
        for trial, result in zip(asked, results, strict=True):
            done += 1
            _say(_line(study, _told(study, trial, result), result, 60 * done / (time.monotonic() - began)))
        told()
        study.check_errors()


def _told(study: Study, trial: Trial, result: Result) -> Trial:
    if result.metrics is not None:
        return study.tell(trial, result.metrics)
    study.fail(trial, result.error or "the run did not finish")
    return trial


def _line(study: Study, trial: Trial, result: Result, per_minute: float) -> str:
    """What is to be seen of a trial while the search goes on."""
    place = f"trial {trial.number} ({len(study.finished)}/{study.target})"
    ratios = " ".join(f"{camera.removeprefix('CAM_')} {ratio:.3f}" for camera, ratio in trial.ratios.items())
    best = next(iter(study.best(1)), None)
    left = max(0, study.left)
    pace = f"{per_minute:.1f} trials/min, {left / per_minute:.0f} min left"
    if trial.objective is None:
        return f"{place}  {ratios}  failed: {study.errors[-1] if study.errors else result.error}  {pace}"
    assert best is not None
    worth = f"R {trial.reward:.4f}  objective {trial.objective:.4f}  best {best.objective:.4f} (trial {best.number})"
    return f"{place}  {ratios}  {worth}  {pace}"


def _resuming(jobs: Jobs) -> str:
    return f"python run.py -m {jobs.command} {shlex.quote(f'search.resume={jobs.folder}')}"


def _say(line: str) -> None:
    print(line, flush=True)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
