"""The paper's claims: what the experiments of configs/experiment/ say about themselves in their node `claim`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from experiments.runs import Options
from prune2drive.errors import InputError
from prune2drive.files import CONFIGS
from prune2drive.tasks.config import compose

FOLDER = CONFIGS / "experiment"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and the experiment that tests it, in the paper's setting or on the embedded benchmark.

    Args:
        name: of the experiment.
        says: the claim in a sentence.
        source: where the published numbers are from.
        needs: what the paper's setting needs: data, checkpoint with its memory, judge.
        counterpart: options that move the experiment to the embedded benchmark, or the claim that has the same runs.
        sweep: option -> its values; their product is the experiment's jobs.
        is_search: whether a job is a search for keep ratios, with a command of its own.
        reference: values of the job that the others of the same budget are compared with.
        headline: key of the published score.
        columns: key of metrics.json -> what it is multiplied by in the paper.
        published: job -> published values, in the order of the columns; None where there is no number.
        also: what was published besides.
        notes: what to know about the comparison.
    """

    name: str
    says: str
    source: str
    needs: tuple[str, ...]
    counterpart: Options | str
    sweep: Mapping[str, tuple[str, ...]]
    is_search: bool
    reference: Mapping[str, str]
    headline: str
    columns: Mapping[str, float]
    published: Mapping[Options, tuple[float | None, ...]]
    also: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, name: str) -> Claim:
        """Reads the claim of an experiment.

        Raises:
            InputError: there is no such experiment, or it makes no claim.
        """
        content = _content(name)
        if "claim" not in content:
            raise InputError(f"{name}: no claim of the paper; there are {', '.join(names())}")
        claim: dict[str, Any] = content["claim"]
        searches = claim.pop("searches", None)
        swept = searches or {key: values.split(",") for key, values in content["hydra"]["sweeper"]["params"].items()}
        sweep = {key: tuple(str(value).strip() for value in values) for key, values in swept.items()}
        lists = {key: tuple(claim.pop(key, ())) for key in ("needs", "also", "notes")}
        counterpart = claim.pop("counterpart")
        reference = {key: str(value) for key, value in claim.pop("reference").items()}
        published = {_job(sweep, row[: len(sweep)]): tuple(row[len(sweep) :]) for row in claim.pop("published")}
        return cls(
            name=name,
            counterpart=counterpart if isinstance(counterpart, str) else tuple(counterpart),
            sweep=sweep,
            is_search=searches is not None,
            reference=reference,
            published=published,
            **lists,
            **claim,
        )

    @property
    def jobs(self) -> list[Options]:
        """Returns the options of each job of the sweep."""
        return [_job(self.sweep, values) for values in product(*self.sweep.values())]

    def rival(self, job: Options) -> Options:
        """Returns the job that a job is compared with: the reference of the same budget."""
        values = {**dict(option.split("=", 1) for option in job), **self.reference}
        return _job(self.sweep, values.values())

    def published_lead(self, job: Options) -> float | None:
        """Returns how far the reference is ahead of a job in the paper; None where there is no number."""
        at = list(self.columns).index(self.headline)
        ours, theirs = (self.published.get(each, (None,) * len(self.columns))[at] for each in (self.rival(job), job))
        return None if ours is None or theirs is None or job == self.rival(job) else round(ours - theirs, 6)

    def here(self, job: Options = ()) -> Options:
        """Returns the options of a job on the embedded benchmark, or of all of its jobs."""
        assert not isinstance(self.counterpart, str), f"{self.name}: its runs are those of {self.counterpart}"
        return (f"experiment={self.name}", *job, *self.counterpart)

    def there(self, job: Options = ()) -> Options:
        """Returns the options of a job in the paper's setting, or of all of its jobs."""
        return (f"experiment={self.name}", *job)

    def commands(self, here: bool) -> list[str]:
        """Returns the commands that make all runs, on the embedded benchmark or in the paper's setting."""
        of = self.here if here else self.there
        missing = [f"{key}=DIR" for key in sorted(OmegaConf.missing_keys(configuration(of(self.jobs[0]))))]
        jobs = self.jobs if self.is_search else [()]
        return [shlex.join(["python", "run.py", "-m", *of(job), *missing]) for job in jobs]


def names() -> list[str]:
    """Returns the names of the experiments that test a claim."""
    return [file.stem for file in sorted(FOLDER.glob("*.yaml")) if "claim" in _content(file.stem)]


@cache
def configuration(options: Options) -> DictConfig:
    """Returns the configuration of a job, resolved, as interpolations read what Hydra composed last."""
    return OmegaConf.create(OmegaConf.to_container(compose(["folder=.", *options]), resolve=True))


def _content(name: str) -> dict[str, Any]:
    file = FOLDER / f"{name}.yaml"
    if not file.is_file():
        raise InputError(f"{name}: no such experiment; claims are {', '.join(names())}")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _job(sweep: Mapping[str, Any], values: Any) -> Options:
    return tuple(f"{key}={value}" for key, value in zip(sweep, values, strict=True))
