"""Shows a search with all its trials as one run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb

from prune2drive.report.wandb import RunLogger
from prune2drive.report.wandb.keys import BARS, BEST, FRONT, IMPORTANCE, OBJECTIVE, POINTS, RATIO, TRIAL
from prune2drive.search.page import REPORT
from prune2drive.search.study import Study
from prune2drive.search.trials import Trial, best_so_far, has_one_total, pareto
from prune2drive.search.verdict import WINNER


class SearchLogger(RunLogger):
    """Logs trials while a search runs, and charts and the verdict when it ends.

    Args:
        save_dir: folder of the sweep.
        offline: whether to write files only, which `wandb sync` uploads later.
        options: further options of Lightning's WandbLogger (project, name, group, tags, ...).

    Raises:
        InputError: `offline` is false and the machine has no W&B key.
    """

    def __init__(self, save_dir: str, offline: bool = True, **options: Any) -> None:
        super().__init__(save_dir, offline, **options | {"job_type": "search", "resume": None})  # all steps again
        self._sent = 0

    def log_trials(self, trials: Sequence[Trial]) -> None:
        """Sends the trials that W&B does not have yet, in the order of their numbers."""
        with self.harmless():
            if self._experiment is None:
                self.experiment.define_metric("*", step_metric=TRIAL)
            rows = list(zip(trials, best_so_far(trials), strict=True))
            for trial, highest in rows[self._sent :]:
                self._sent += 1
                self.log_metrics(_step(trial, highest))

    def publish_search(self, study: Study, ended: bool) -> None:
        """Sends charts of all trials and the verdict, and ends the W&B run.

        Args:
            study: trials and verdict of the search.
            ended: whether the search reached a verdict.
        """
        trials = study.trials
        self.log_trials(trials)
        with self.harmless():
            self.log_hyperparams({"config": study.identity, "search": {"study": study.name, **study.about}})
            if charts := _charts(study, trials):
                self.experiment.log(charts)
            self.experiment.summary.update(_outcome(study))
            self.log_files((REPORT, WINNER))
        self.end(exit_code=0 if ended else 1)


def _step(trial: Trial, highest: float | None) -> dict[str, float]:
    """Returns the values to log for a trial."""
    ratios = {f"{RATIO}{camera}": ratio for camera, ratio in trial.ratios.items()}
    worth = {OBJECTIVE: trial.objective, "reward": trial.reward, BEST: highest}
    known = {key: value for key, value in worth.items() if value is not None}
    return {TRIAL: trial.number, "failed": int(bool(trial.error)), "mean_ratio": trial.mean, **ratios, **known}


def _charts(study: Study, trials: Sequence[Trial]) -> dict[str, Any]:
    """Returns charts of the variables' importance and of the Pareto front, where there is data."""
    charts = {}
    if importance := study.importance():
        table = wandb.Table([*BARS[IMPORTANCE]], [list(item) for item in importance.items()])
        charts[IMPORTANCE] = wandb.plot.bar(table, *BARS[IMPORTANCE], title="importance")
    done = [trial for trial in trials if trial.reward is not None]
    if not has_one_total(done):
        front = {trial.number for trial in pareto(done)}
        rows = [[trial.mean, trial.reward, trial.number, trial.objective, trial.number in front] for trial in done]
        table = wandb.Table([*POINTS[FRONT], "trial", "objective", "on the front"], rows)
        charts[FRONT] = wandb.plot.scatter(table, *POINTS[FRONT], title="reward and kept share")
    return charts


def _outcome(study: Study) -> dict[str, Any]:
    """Returns a search's summary: its verdict, or its best trial before there is one."""
    winner, verdict = study.winner, study.verdict
    if winner is None:
        return {}
    shown: dict[str, Any] = {"winner": winner.number}
    shown |= {f"winner/{camera}": ratio for camera, ratio in winner.ratios.items()}
    if verdict:
        shown["verdict"] = verdict["sentence"]
        for test in verdict["tested"]:
            shown[f"test/{test['name']}"] = test["reward"]
            ends = zip(("", "_low", "_high"), test["ahead"] or (), strict=False)
            shown |= {f"test/searched_minus_{test['name']}{end}": value for end, value in ends}
    return shown
