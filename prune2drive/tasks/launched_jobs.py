"""Jobs of a multirun that a queue such as Slurm runs: in processes that it may restart, or end at any moment."""

from __future__ import annotations

import os
import re
from functools import wraps
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from prune2drive.errors import InputError

SUBMITIT = "hydra_plugins.hydra_submitit_launcher."


def go_on_where_restarted(cfg: DictConfig) -> None:
    """Makes a job that Slurm has put in the queue again, after preemption or at its time limit, resume its own run."""
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and not cfg.resume and Path(cfg.folder, "run.json").exists():
        cfg.resume = cfg.folder


def wait_for_all_jobs(launcher: DictConfig) -> None:
    """Makes Hydra's submitit launchers return a failed job for one that was killed.

    By itself the launcher ends with an error at the first of them, and loses the jobs that are still running.

    Args:
        launcher: the node `hydra.launcher` of the configuration.
    """
    if not launcher._target_.startswith(SUBMITIT):
        return
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    any_job: Any = Job
    results = getattr(any_job.results, "__wrapped__", any_job.results)

    @wraps(results)
    def results_or_failure(job: Any) -> list[Any]:
        try:
            return results(job)
        except (FailedJobError, UncompletedJobError) as error:
            overrides = job.submission().args[0]
            return [JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=_lost(job, str(error)))]

    any_job.results = results_or_failure


def _lost(job: Any, message: str) -> InputError:
    state = re.search(r"\(state: ([^)]+)\)", message)
    ended = f"ended without a result ({state[1]})" if state else "failed"
    return InputError(
        f"job {job.job_id} {ended}: see {job.paths.stderr}; finished runs are kept, and an unfinished one goes on with "
        "resume=<its run folder>"
    )
