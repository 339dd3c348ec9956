"""The search for keep ratios, `-m search=tpe`: trials on one split, finalists on a second, the verdict on a third.

The VLM stays as it is; only the ratios change (paper, section 3.3). A trial is an ordinary run of the search split.
"""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from prune2drive.cameras import short_name
from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.search.ledger import NOTES, Ledger
from prune2drive.search.page import write_search_report
from prune2drive.search.plan import Plan, make_plan
from prune2drive.search.runner import Job, Result, RunLauncher
from prune2drive.search.storage import default_storage
from prune2drive.search.study import Study, Trial
from prune2drive.search.verdict import evaluate_finalists
from prune2drive.tasks.components import build

log = logging.getLogger(__name__)

LOGGER = "prune2drive.search.wandb.SearchLogger"


def run_search(settings: DictConfig, jobs: RunLauncher) -> Path:
    """Searches, or goes on with a search, and says whether it was worth it.

    Returns:
        the report.

    Raises:
        InputError: bad settings, before the first trial; or three trials in a row that failed alike.
        KeyboardInterrupt: after what was running is recorded.
    """
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
        plan.sampler,
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
        report, ended = evaluate_finalists(plan, study, jobs), True
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
    engine = {"engine": plan.sampler.name, "sampler": plan.sampler.sampler}
    return {**plan.names, **engine, "trials": plan.settings.trials, "questions": sizes}


def _go_through(study: Study, plan: Plan, jobs: RunLauncher, told: Callable[[], None]) -> None:
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
    ratios = " ".join(f"{short_name(camera)} {ratio:.3f}" for camera, ratio in trial.ratios.items())
    best = next(iter(study.best(1)), None)
    left = max(0, study.left)
    pace = f"{per_minute:.1f} trials/min, {left / per_minute:.0f} min left"
    if trial.objective is None:
        return f"{place}  {ratios}  failed: {study.errors[-1] if study.errors else result.error}  {pace}"
    assert best is not None
    worth = f"R {trial.reward:.4f}  objective {trial.objective:.4f}  best {best.objective:.4f} (trial {best.number})"
    return f"{place}  {ratios}  {worth}  {pace}"


def _resuming(jobs: RunLauncher) -> str:
    return f"python run.py -m {jobs.command} {shlex.quote(f'search.resume={jobs.folder}')}"


def _say(line: str) -> None:
    print(line, flush=True)
