"""Checks that run folders are the shards of one run, and puts their rows together."""

from __future__ import annotations

import logging
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune2drive.errors import InputError
from prune2drive.files import read_json, write_atomically
from prune2drive.results.resume import SAME_ON_RESUME, difference
from prune2drive.results.run_folder import FORMAT, ROWS, RunFolder

log = logging.getLogger(__name__)

SAME = (*(option for option in SAME_ON_RESUME if option != "shard"), "full")
PROVENANCE = ("git", "versions", "device", "threads")
ENDED = ("finished", "unjudged")


@dataclass(frozen=True)
class Part:
    """Holds the folder of one shard.

    Args:
        path: the run folder.
        run: content of run.json.
    """

    path: Path
    run: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Part:
        """Reads a shard's folder.

        Raises:
            InputError: it holds no run, one of another version, or one that is no shard.
        """
        run = read_json(path / "run.json", f"give the run folders of all shards; {path} is none")
        if not isinstance(run, dict) or run.get("format") != FORMAT:
            raise InputError(f"{path}: written by another version; run that shard again")
        if not (run.get("dataset") or {}).get("shard"):
            raise InputError(f"{path}: not a shard, but a whole run; give folders of runs with shard=1/N to shard=N/N")
        return cls(path, run)

    @property
    def shard(self) -> str:
        """Returns which shard it is, such as `3/16`."""
        return self.run["dataset"]["shard"]

    @property
    def whole(self) -> dict[str, Any]:
        """Returns the fingerprint and the size of the whole dataset."""
        return self.run["dataset"]["whole"]

    @property
    def number(self) -> int:
        """Returns the shard's number, from 1."""
        return int(self.shard.partition("/")[0])

    @property
    def count(self) -> int:
        """Returns the number of shards."""
        return int(self.shard.partition("/")[2])

    @property
    def command(self) -> str:
        """Returns the command that began the run, without `resume=`."""
        return " ".join(word for word in self.run["command"].split(" ") if not word.startswith("resume="))

    @property
    def peak_mb(self) -> float | None:
        """Returns the peak memory of the process, where it was measured."""
        return read_json(self.path / "metrics.json").get("memory/peak_mb")

    def provenance(self) -> dict[str, Any]:
        """Returns what the merged run.json has of this part."""
        names = ("command", "started", "finished", "counts", *PROVENANCE)
        return {"folder": str(self.path), "shard": self.shard, **{name: self.run.get(name) for name in names}}


def read_parts(folders: Sequence[Path]) -> list[Part]:
    """Returns the shards of one run in the dataset's order.

    Raises:
        InputError: the folders are no shards of one run, one of them is missing or doubled, or one is not finished.
    """
    parts = [Part.read(folder) for folder in folders]
    if not parts:
        raise InputError("no folders; give the run folders of all shards")
    _check_same(parts)
    _check_complete(parts)
    if any(part.run.get(name) != parts[0].run.get(name) for part in parts for name in ("git", "versions")):
        log.warning("the shards ran at several commits or versions of packages: see `parts` in run.json")
    return sorted(parts, key=lambda part: part.number)


def _check_same(parts: Sequence[Part]) -> None:
    """Refuses parts of different runs.

    Raises:
        InputError: an option or the questions differ.
    """
    first = parts[0]
    for part in parts[1:]:
        both = f"{first.path} and {part.path}"
        if part.count != first.count:
            raise InputError(f"{both}: parts of different runs, shard={first.shard} and shard={part.shard}")
        for option in SAME:
            if found := difference(option, first.run["config"].get(option), part.run["config"].get(option)):
                raise InputError(f"{both}: different runs, {found.between()}")
        if found := difference("judge", first.run.get("judge"), part.run.get("judge")):
            raise InputError(f"{both}: different runs, {found.between()}")
        if part.whole != first.whole:
            raise InputError(f"{both}: different runs, their datasets have other questions or images")
    if len(types := {part.run["dtype"]: part.path for part in parts if part.run.get("dtype")}) > 1:
        named = ", ".join(f"{dtype} in {path}" for dtype, path in types.items())
        raise InputError(f"the weights had different types: {named}; run all shards with one model.dtype")


def _check_complete(parts: Sequence[Part]) -> None:
    """Refuses doubled, missing and unfinished parts.

    Raises:
        InputError: there are such parts; it names them.
    """
    places: dict[int, list[str]] = defaultdict(list)
    for part in parts:
        places[part.number].append(str(part.path))
    count = parts[0].count
    if doubled := [number for number, paths in places.items() if len(paths) > 1]:
        paths = " and ".join(places[doubled[0]])
        raise InputError(f"shard {doubled[0]}/{count} is there more than once, in {paths}; give one folder of each")
    if missing := [f"{number}/{count}" for number in range(1, count + 1) if number not in places]:
        raise InputError(f"shards are missing: {', '.join(missing)}; run them, or add their folders")
    for part in parts:
        if part.run.get("status") not in ENDED:
            again = f"{part.command} {shlex.quote(f'resume={part.path}')}"
            raise InputError(f"{part.path}: shard {part.shard} is not finished; go on with: {again}")


def join_rows(parts: Sequence[Part], folder: RunFolder) -> None:
    """Writes the rows of all parts into a folder, in the order of the parts.

    Args:
        parts: shards of one run.
        folder: where to.

    Raises:
        InputError: a part lacks rows, or the folder cannot be written.
    """

    def lines() -> Iterator[str]:
        for part in parts:
            done, planned = 0, part.run["dataset"]["size"]
            with (part.path / ROWS).open(encoding="utf-8") as file:
                for line in file:
                    yield line
                    done += 1
            if done != planned:
                raise InputError(f"{part.path}: {done} rows for {planned} questions; run shard {part.shard} again")

    write_atomically(folder.path / ROWS, lines())


def merged_record(parts: Sequence[Part]) -> dict[str, Any]:
    """Returns the fields of run.json that tell where a merged run comes from."""
    common = {name: parts[0].run.get(name) for name in PROVENANCE}
    for name in common:
        if any(part.run.get(name) != common[name] for part in parts):
            common[name] = "several, see parts"
    dtype = next((part.run["dtype"] for part in parts if part.run.get("dtype")), None)
    started = min(part.run["started"] for part in parts)
    return {**common, "dtype": dtype, "started": started, "parts": [part.provenance() for part in parts]}
