"""Replies that were paid for once: a table on disk that several processes may share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from prune2drive.errors import InputError

SECONDS_TO_WAIT = 60  # while another process writes


class Replies:
    """A table from keys to texts, in SQLite: an entry is there whole or not at all, whenever a process is killed.

    Args:
        folder: created where it is missing.

    Raises:
        InputError: the folder cannot be written, or what is there is no such table.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "replies.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another judge.cache") from error
        self._do("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        found = self._do("SELECT reply FROM replies WHERE key = ?", key)
        return found[0][0] if found else None

    def put(self, key: str, reply: str) -> None:
        self._do("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, reply)

    def _do(self, statement: str, *values: str) -> list[tuple[str]]:
        try:
            with closing(sqlite3.connect(self.path, SECONDS_TO_WAIT, isolation_level=None)) as database:
                return database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: unusable ({error}); choose another judge.cache") from error
