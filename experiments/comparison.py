"""Holds a claim's runs against what was published."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import DictConfig

from experiments.claims import Claim, configuration
from experiments.found_runs import Found, FoundRuns, setting
from experiments.runs import Options
from prune2drive.metrics.intervals import Interval, difference, interval

SAME_BUDGET = 0.01  # relative difference of kept tokens
KEPT = "tokens/visual_kept"


@dataclass(frozen=True)
class Row:
    """A job on the embedded benchmark.

    Args:
        job: its options.
        run: its run; None if there is none.
        lead: how far the reference is ahead of it, in points; None for the reference and where a run is missing.
        published: how far the reference is ahead of it in the paper; None without a number.
    """

    job: Options
    run: Found | None
    lead: Interval | None
    published: float | None

    @property
    def score(self) -> Interval:
        """Returns the share of right answers in percent."""
        assert self.run is not None
        return in_points(interval(self.run.scores, self.run.frames))

    @property
    def verdict(self) -> str:
        """Says what the run means for the published difference; empty where there is nothing to compare."""
        if self.lead is None or self.published is None:
            return ""
        sign = (self.lead.low > 0) - (self.lead.high < 0)
        expected = (self.published > 0) - (self.published < 0)
        if sign == expected:
            return "agrees"
        return "contradicts" if sign else "undecided"


def rows_here(claim: Claim, found: FoundRuns) -> list[Row]:
    """Returns the claim's jobs on the embedded benchmark, in the order of the sweep; none where they are another's."""
    if isinstance(claim.counterpart, str):
        return []
    runs = {job: newest(found, configuration(claim.here(job))) for job in claim.jobs}
    rows = []
    for job, run in runs.items():
        best = runs[claim.rival(job)]
        lead = None
        if run and best and job != claim.rival(job):
            lead = in_points(difference(best.scores, run.scores, best.frames))
        rows.append(Row(job, run, lead, claim.published_lead(job)))
    return rows


def runs_there(claim: Claim, found: FoundRuns) -> Iterator[tuple[Options, Found, str]]:
    """Yields runs of the claim's jobs but those on the embedded benchmark: job, run, why it cannot be compared.

    The newest run of each model and data set is yielded; one that can be compared has no reason.
    """
    if all(run.is_embedded for run in found.runs):
        return
    for job in claim.jobs:
        cfg, seen = configuration(claim.there(job)), set[tuple[str, str]]()
        for run in found.like(cfg):
            if not run.is_embedded and run.setting not in seen:
                seen.add(run.setting)
                yield job, run, incomparable(claim, job, run, setting(cfg))


def incomparable(claim: Claim, job: Options, run: Found, wanted: tuple[str, str]) -> str:
    """Returns why a run's scores cannot be compared with the published ones; empty where they can.

    Args:
        claim: the claim.
        job: the claim's job with the run's options.
        run: a run of any model and data set.
        wanted: names of the claim's model and data set.
    """
    if run.record["is_noise"]:
        return "random weights: its answers are noise"
    if run.setting != wanted:
        return f"another model or data set, {' on '.join(run.setting)}"
    published = dict(zip(claim.columns, claim.published.get(job, ()), strict=False))
    tokens = published.get(KEPT)
    if tokens and abs(run.metrics[KEPT] / tokens - 1) > SAME_BUDGET:
        return f"another budget, {run.metrics[KEPT]:.0f} visual tokens instead of {tokens:.0f}"
    if claim.headline not in run.metrics:
        return f"no {claim.headline}: no judge ran, or there are no references"
    return ""


def in_points(share: Interval) -> Interval:
    """Returns an interval of shares in percent."""
    return Interval(100 * share.value, 100 * share.low, 100 * share.high, share.n)


def newest(found: FoundRuns, cfg: DictConfig) -> Found | None:
    """Returns the newest run of a configuration; None if there is none."""
    return next((run for run in found.like(cfg) if run.asks_the_same(cfg)), None)
