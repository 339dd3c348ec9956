"""Reads and writes a run folder; finished rows survive a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from prune2drive.errors import InputError
from prune2drive.files import UNENCODABLE, read_json, write_atomically, write_json
from prune2drive.results.id_index import IdIndex, IdSet
from prune2drive.sample import Prediction

ROWS = "predictions.jsonl"
FULL = "full"
"""The same questions with all tokens: their folder within a run's, and the first part of their keys in its metrics."""
IN_FULL = f"{FULL}/"
FORMAT = 3  # of run.json; a run in a folder of another format cannot be resumed


class RunFolder:
    """Holds one run: `run.json`, `metrics.json`, `predictions.jsonl`.

    Every rank appends to its own file, so that no lock is needed; `merge` joins the files.

    Args:
        path: the folder, created if it is missing.
        rank: rank of this process.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, path: str | Path, rank: int = 0) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another hydra.run.dir"
            ) from error
        self.rank = rank

    @property
    def rows_file(self) -> Path:
        """Returns the file that this rank appends to."""
        return self.path / (ROWS if self.rank == 0 else f"predictions.rank{self.rank}.jsonl")

    @property
    def has_rows(self) -> bool:
        """Returns whether a run has begun in the folder."""
        return bool(_row_files(self.path))

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Appends finished rows to this rank's file.

        Raises:
            InputError: the file cannot be written; it may hold some of the rows.
        """
        lines = "".join(json.dumps(prediction.to_row(), ensure_ascii=False) + "\n" for prediction in predictions)
        if not lines:
            return
        try:
            with self.rows_file.open("ab") as file:
                file.write(lines.encode(errors=UNENCODABLE))
        except OSError as error:
            raise InputError(
                f"{self.rows_file}: cannot be written ({error.strerror}); free space and go on with resume={self.path}"
            ) from error

    def rows(self) -> Iterator[Prediction]:
        """Yields all finished rows, file by file, without a torn last line."""
        return rows_in(self.path)

    def merge(self, ids: Sequence[str]) -> Rows:
        """Joins all ranks' rows in predictions.jsonl, every sample once and the latest of it, and returns them.

        Args:
            ids: all ids in the file's order; rows with other ids are dropped.

        Raises:
            InputError: a line is not a row, or the folder cannot be written.
        """
        return Rows(self, len(self._arrange(IdIndex(ids), lambda row: True)))

    def keep_answered(self, ids: Sequence[str]) -> Set[str]:
        """Drops torn lines and the rows of failed samples before a resume, and returns the ids of the other samples.

        Args:
            ids: all ids in the file's order; rows with other ids are dropped.

        Raises:
            InputError: a line is not a row, or the folder cannot be written.
        """
        return self._arrange(IdIndex(ids), lambda row: row.error is None)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file of the folder, whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        write_json(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the folder.

        Raises:
            InputError: the file is missing, damaged or not an object.
        """
        content = read_json(self.path / name, advice := f"{self.path} is no run folder to resume")
        if not isinstance(content, dict):
            raise InputError(f"{self.path / name}: not a JSON object; {advice}")
        return content

    def _arrange(self, index: IdIndex, is_kept: Callable[[Prediction], bool]) -> IdSet:
        """Rewrites all row files as one, without holding lines in memory, and returns the ids in it.

        Args:
            index: all ids in the file's order.
            is_kept: whether a row stays; of several rows with one id, the last that does is kept.
        """
        paths = _row_files(self.path)
        file_N = np.full(len(index.ids), -1, dtype=np.int32)
        start_N, size_N = np.zeros(len(index.ids), dtype=np.int64), np.zeros(len(index.ids), dtype=np.int32)
        latest, is_arranged = -1, [path.name for path in paths] == [ROWS]
        for number, path in enumerate(paths):
            whole = 0
            for row, start, whole in _read_rows(path):
                place = index.place(row.id)
                if place is None or not is_kept(row):
                    is_arranged = False
                    continue
                is_arranged, latest = is_arranged and latest < place, place
                file_N[place], start_N[place], size_N[place] = number, start, whole - start
            is_arranged &= whole == path.stat().st_size  # no line is torn
        kept = IdSet(index, file_N >= 0)
        if is_arranged:
            return kept
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in paths]
            places = np.flatnonzero(file_N >= 0).astype(np.int32)
            lines = (_line(files[file_N[place]], int(start_N[place]), int(size_N[place])) for place in places)
            write_atomically(self.path / ROWS, lines)
        for path in paths:
            if path.name != ROWS:
                path.unlink()
        return kept


class Rows(Collection[Prediction]):
    """Holds the rows of a finished run, read from disk each time they are gone through.

    Args:
        folder: the run folder.
        count: the number of rows.
    """

    def __init__(self, folder: RunFolder, count: int) -> None:
        self._folder, self._count = folder, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Prediction]:
        return self._folder.rows()

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)


def rows_in(folder: Path) -> Iterator[Prediction]:
    """Yields all finished rows of a run folder, which may be read-only, without a torn last line.

    Raises:
        InputError: a line is not a row.
    """
    for path in _row_files(folder):
        yield from (row for row, _, _ in _read_rows(path))


def _row_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("predictions*.jsonl"))


def _read_rows(path: Path) -> Iterator[tuple[Prediction, int, int]]:
    """Yields rows with the byte offsets at which their lines start and end, up to a line torn by a kill."""
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = Prediction.from_row(json.loads(line.decode()))
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(f"{path}, line {number}: not a row of predictions ({error})") from error
            yield row, start, start + len(line)
            start += len(line)


def _line(file: BinaryIO, start: int, size: int) -> str:
    file.seek(start)
    return file.read(size).decode()
