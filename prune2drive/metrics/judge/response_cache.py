"""Keeps replies that were paid for, in a table on disk that several processes may share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from prune2drive.errors import InputError

TIMEOUT = 60  # seconds to wait while another process writes


class ResponseCache:
    """A table from keys to texts in SQLite: an entry is stored whole or not at all, whenever a process is killed.

    Args:
        folder: created where it is missing.

    Raises:
        InputError: the folder cannot be written, or holds a file that is no such table.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "replies.sqlite"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be created ({error.strerror}); choose another judge.cache") from error
        self._execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    def get(self, key: str) -> str | None:
        """Returns the text of a key; None where there is none."""
        rows = self._execute("SELECT reply FROM replies WHERE key = ?", key)
        return rows[0][0] if rows else None

    def put(self, key: str, reply: str) -> None:
        """Stores the text of a key."""
        self._execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", key, reply)

    def _execute(self, statement: str, *values: str) -> list[tuple[str]]:
        try:
            with closing(sqlite3.connect(self.path, TIMEOUT, isolation_level=None)) as database:
                return database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: unusable ({error}); choose another judge.cache") from error
