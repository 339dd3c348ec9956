"""Searches keep ratios, `-m search=tpe`: trials on one split, finalists on a second, the winner's test on a third.

The VLM stays as it is; only the ratios change (paper, section 3.3). A trial is an ordinary run on the search split.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from prune2drive.cameras import short_name
from prune2drive.errors import InputError
from prune2drive.search.active_study import ActiveStudy
from prune2drive.search.page import write_search_report
from prune2drive.search.plan import Plan, make_plan
from prune2drive.search.runner import Job, RunLauncher
from prune2drive.search.storage import STUDY_FILE, Location, default_storage, lost_storage, shown
from prune2drive.search.trials import Trial
from prune2drive.search.verdict import evaluate_finalists
from prune2drive.tasks.components import build

LOGGER = "prune2drive.search.wandb.SearchLogger"


def run_search(settings: DictConfig, launcher: RunLauncher) -> Path:
    """Starts or continues a search, and tests whether its ratios are better than unsearched ones.

    Args:
        settings: the node `search` of the configuration.
        launcher: makes the runs.

    Returns:
        The path of the Markdown report.

    Raises:
        InputError: bad settings, before the first trial; or several trials in a row that failed with one error, or a
            storage that went away.
        KeyboardInterrupt: the user or a queue ended the search; what was running has been recorded.
    """
    folder = launcher.folder
    location = _location(settings, folder)
    plan = make_plan(settings, launcher)
    logger = None
    if launcher.config.logger:
        logger = build(launcher.config.logger, _target_=LOGGER, save_dir=str(folder))
    with lost_storage(location.storage, f"when it answers again, go on with search.resume={folder}"):
        return _search(plan, location, launcher, logger)


def _search(plan: Plan, location: Location, launcher: RunLauncher, logger: Any) -> Path:
    """Evaluates what the study lacks, and leaves the sweep's reports however that ends."""
    settings, folder = plan.settings, launcher.folder
    study = ActiveStudy(
        location,
        plan.sampler,
        plan.space,
        plan.objective,
        plan.identity,
        settings.trials,
        settings.seed,
        metrics_of=lambda number: launcher.finished(str(number)),
    )
    _check_runs(folder, study)
    location.save(folder)
    ended = False
    try:
        study.optuna_study.set_user_attr("about", _about(plan))
        done = f"{len(study.trials)} of {settings.trials} trials done"
        _say(f"study {study.name}: {done}, stored in {shown(location.storage)}")
        if launcher.at_once >= settings.trials > 1:
            _say("all trials run at once, so none learns from another: search.at_once=8 would run eight")
        _evaluate_trials(study, plan, launcher, lambda: logger.log_trials(study.trials) if logger else None)
        report, ended = evaluate_finalists(plan, study, launcher), True
        return report
    except KeyboardInterrupt:
        best = "".join(f", the best is {trial.number} with {trial.objective:.4f}" for trial in study.best(1))
        resume = f"python run.py -m {launcher.command} {shlex.quote(f'search.resume={folder}')}"
        _say(f"interrupted after {len(study.trials)} trials{best}; to go on: {resume}")
        raise
    finally:
        study.close()
        _say(f"all trials: {write_search_report(folder, study)}")
        if logger:
            logger.publish_search(study, ended)


def _location(settings: DictConfig, folder: Path) -> Location:
    """Returns where the study is stored.

    Runs are named by the numbers of their trials, so a folder belongs to one study, on however many machines.

    Raises:
        InputError: the folder to resume holds no search, or the folder of a new search holds another one.
    """
    if settings.resume:
        saved = Location.read(folder)
        return saved._replace(storage=settings.storage or saved.storage)
    location = Location(settings.study, settings.storage or default_storage(folder))
    if (folder / STUDY_FILE).exists() and Location.read(folder) != location:
        advice = f"go on with search.resume={folder}, or choose another hydra.sweep.dir for this one"
        raise InputError(f"{folder} holds another search: {advice}")
    return location


def _check_runs(folder: Path, study: ActiveStudy) -> None:
    """Checks that a study without trials finds no runs, which it would take for its own.

    Raises:
        InputError: there are runs.
    """
    if not study.optuna_study.get_trials(deepcopy=False) and any(folder.glob("*/run.json")):
        raise InputError(f"{folder} holds runs that this search does not know; choose another hydra.sweep.dir")


def _about(plan: Plan) -> dict[str, Any]:
    """Returns what readers of the study are told besides what makes its trials comparable."""
    sizes = {name: questions["size"] for name, questions in plan.questions.items()}
    engine = {"engine": plan.sampler.engine, "sampler": plan.sampler.name}
    return {**plan.names, **engine, "trials": plan.settings.trials, "questions": sizes}


def _evaluate_trials(study: ActiveStudy, plan: Plan, launcher: RunLauncher, publish: Callable[[], None]) -> None:
    """Evaluates trials until the study is complete.

    Args:
        study: proposes and records the trials.
        plan: the search.
        launcher: makes the runs.
        publish: called at the start and whenever trials were recorded.
    """
    began, done = time.monotonic(), 0
    publish()
    while asked := study.ask(launcher.at_once):
        try:
            results = launcher.run([Job(str(trial.number), plan.splits["search"], trial.ratios) for trial in asked])
        except KeyboardInterrupt:
            for trial in asked:
                metrics = launcher.finished(str(trial.number))
                study.give_up(trial.number) if metrics is None else study.tell(trial, metrics)
            raise
        for trial, result in zip(asked, results, strict=True):
            if result.metrics is not None:
                trial = study.tell(trial, result.metrics)
            else:
                trial = study.fail(trial, result.error or "the run did not finish")
            done += 1
            _say(_progress(study, trial, 60 * done / (time.monotonic() - began)))
        publish()
        study.check_errors()


def _progress(study: ActiveStudy, trial: Trial, per_minute: float) -> str:
    """Returns the line that is printed when a trial has ended."""
    place = f"trial {trial.number} ({len(study.trials)}/{study.target})"
    ratios = " ".join(f"{short_name(camera)} {ratio:.3f}" for camera, ratio in trial.ratios.items())
    pace = f"{per_minute:.1f} trials/min, {max(0, study.remaining) / per_minute:.0f} min left"
    if trial.error:
        return f"{place}  {ratios}  failed: {trial.error}  {pace}"
    (best,) = study.best(1)
    worth = f"R {trial.reward:.4f}  objective {trial.objective:.4f}  best {best.objective:.4f} (trial {best.number})"
    return f"{place}  {ratios}  {worth}  {pace}"


def _say(line: str) -> None:
    print(line, flush=True)
