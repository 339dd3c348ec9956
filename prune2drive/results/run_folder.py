"""The run folder: what a run leaves behind, written so that a kill at any moment loses nothing finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from prune2drive.errors import InputError
from prune2drive.files import UNENCODABLE, read_json, write_atomically, write_json
from prune2drive.sample import Prediction

ROWS = "predictions.jsonl"


class RunFolder:
    """One run's folder: `run.json`, `metrics.json`, `predictions.jsonl`.

    Each rank appends to a file of its own, so that ranks on several machines need no lock; `merge`
    makes one of them.

    Args:
        path: created where it is missing.
        rank: of this process.

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
        return self.path / (ROWS if self.rank == 0 else f"predictions.rank{self.rank}.jsonl")

    @property
    def has_rows(self) -> bool:
        """Whether a run has begun here."""
        return bool(self._row_files())

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Adds finished rows at the end of the file.

        Raises:
            InputError: they cannot be written, or not all of them.
        """
        lines = "".join(json.dumps(prediction.to_row(), ensure_ascii=False) + "\n" for prediction in predictions)
        if not lines:
            return
        try:
            with self.rows_file.open("ab") as file:
                file.write(lines.encode(errors=UNENCODABLE))
        except OSError as error:
            raise InputError(
                f"{self.rows_file}: cannot be written ({error.strerror}); make room and go on with resume={self.path}"
            ) from error

    def rows(self) -> Iterator[Prediction]:
        """All finished rows, file by file; a torn last line is no row."""
        for path in self._row_files():
            yield from (prediction for prediction, _ in _read_rows(path))

    def merge(self, order: Mapping[str, int]) -> None:
        """Makes one predictions.jsonl of all ranks' rows, in the dataset's order, each sample once.

        Args:
            order: id -> place; rows of other ids are dropped.
        """
        self._rewrite(lambda row: order.get(row.id))

    def keep_answered(self) -> set[str]:
        """Readies the folder for resuming: drops torn lines and rows of failed samples, which are tried again.

        Returns:
            The ids that are finished.
        """
        self._rewrite(lambda row: 0 if row.error is None else None)
        return {row.id for row in self.rows()}

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.path / name, content)

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of the folder.

        Raises:
            InputError: it is missing or damaged.
        """
        return read_json(self.path / name, f"{self.path} is no run folder to resume")

    def _row_files(self) -> list[Path]:
        return sorted(self.path.glob("predictions*.jsonl"))

    def _rewrite(self, place: Callable[[Prediction], int | None]) -> None:
        """One file of all rows that have a place, by place; only offsets are held in memory."""
        paths = self._row_files()
        latest: dict[str, tuple[int, int, int]] = {}
        for index, path in enumerate(paths):
            for row, offset in _read_rows(path):
                if (rank := place(row)) is not None:
                    latest[row.id] = (rank, index, offset)
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in paths]
            write_atomically(
                self.path / ROWS, (_line_at(files[index], offset) for _, index, offset in sorted(latest.values()))
            )
        for path in paths:
            if path.name != ROWS:
                path.unlink()


def _read_rows(path: Path) -> Iterator[tuple[Prediction, int]]:
    """Rows with the byte offsets of their lines."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # torn by a kill while it was written
            try:
                row = Prediction.from_row(json.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                raise InputError(f"{path}, line {number}: not a row of this program ({error})") from error
            yield row, offset
            offset += len(line)


def _line_at(file: BinaryIO, offset: int) -> str:
    file.seek(offset)
    return file.readline().decode()
