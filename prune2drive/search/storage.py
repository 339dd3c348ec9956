"""Where trials are kept, so that a search goes on after a kill and several machines share it."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from prune2drive.errors import InputError

SECONDS_TO_WAIT = 60  # while another process writes


def default_storage(folder: Path) -> str:
    return f"sqlite:///{folder.resolve()}/study.db"


def open_storage(storage: str) -> BaseStorage:
    """A database by its URL, or a journal file by its path.

    Raises:
        InputError: it cannot be opened.
    """
    with storage_errors(storage):
        if "://" in storage:
            is_file = storage.startswith("sqlite")
            opened = RDBStorage(
                storage, engine_kwargs={"connect_args": {"timeout": SECONDS_TO_WAIT}} if is_file else {}
            )
            if is_file:
                event.listen(opened.engine, "connect", _write_ahead)
                opened.engine.dispose()  # connections from before
            return opened
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return JournalStorage(JournalFileBackend(storage))


def _write_ahead(connection: Any, _: Any) -> None:
    """Spares a disk flush at each commit, of which a trial has some twenty; a killed process still loses none."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """One line for whatever a storage can have.

    Raises:
        InputError: instead of its own errors.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, RuntimeError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"search.storage={storage}: cannot be used ({reason}); choose another") from error


def this_worker() -> str:
    """A name for this process that no other one has had."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time()}"


def is_dead(worker: str) -> bool:
    """Whether a process has ended; one of another machine may always be alive."""
    host, pid, started = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        return psutil.Process(int(pid)).create_time() != float(started)
    except psutil.NoSuchProcess:
        return True
