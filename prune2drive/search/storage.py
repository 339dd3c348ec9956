"""Opens the storage of a study, which outlives its processes and may be shared by several machines."""

from __future__ import annotations

import os
import random
import re
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import psutil
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from prune2drive.errors import InputError
from prune2drive.files import field, read_json, write_json

STUDY_FILE = "study.json"
TRIES = 20  # to make tables that other processes are making
SECONDS_TO_WAIT = 60  # while another process writes


class Location(NamedTuple):
    """Names the study of a sweep's folder.

    Args:
        study: the study's name.
        storage: a database's URL or a journal file's path.
    """

    study: str
    storage: str

    @classmethod
    def read(cls, folder: Path) -> Location:
        """Reads the location that `save` wrote.

        Raises:
            InputError: the folder holds no search.
        """
        file = folder / STUDY_FILE
        notes = read_json(file, "name the folder of a search (-m search=...)")
        study = field(notes, "study", str, str(file))
        return cls(study, field(notes, "storage", str, str(file), optional=True) or default_storage(folder))

    def save(self, folder: Path) -> None:
        """Writes `study.json`; a storage inside the folder is not named, so that the folder may be moved."""
        elsewhere = None if self.storage == default_storage(folder) else self.storage
        write_json(folder / STUDY_FILE, {"study": self.study, "storage": elsewhere})


def default_storage(folder: Path) -> str:
    """Returns the URL of the database inside a sweep's folder."""
    return f"sqlite:///{folder.resolve()}/study.db"


def open_storage(storage: str, create: bool = True) -> BaseStorage:
    """Opens a storage.

    Args:
        storage: a database's URL or a journal file's path.
        create: whether to make a file that is missing.

    Raises:
        FileNotFoundError: the file is missing and is not to be made.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    is_url, is_sqlite = "://" in storage, storage.startswith("sqlite")
    file = storage.partition(":///")[2] if is_sqlite else "" if is_url else storage
    if file and not create and not Path(file).is_file():
        raise FileNotFoundError(f"no such file: {file}")
    if not is_url:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return JournalStorage(JournalFileBackend(storage))
    options = {"connect_args": {"timeout": SECONDS_TO_WAIT}} if is_sqlite else {"pool_pre_ping": True}
    opened = _open_database(storage, options)
    if is_sqlite:
        event.listen(opened.engine, "connect", _write_ahead)
        opened.engine.dispose()  # closes the connections made before
    return opened


def _open_database(url: str, options: dict[str, Any]) -> RDBStorage:
    """Opens a database, in which another process may be making the same tables at this moment."""
    for left in reversed(range(TRIES)):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except SQLAlchemyError as error:
            if not left or "already exists" not in str(error):
                raise
            time.sleep(random.uniform(0.1, 0.5))
    raise AssertionError("unreachable")


def _write_ahead(connection: Any, _: Any) -> None:
    """Spares a disk flush at each commit, of which a trial has some twenty; a killed process still loses none."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def lost_storage(storage: str, advice: str) -> Iterator[None]:
    """Turns what a storage raises that can no longer be reached into one line.

    Args:
        storage: a database's URL or a journal file's path.
        advice: the end of the line.

    Raises:
        InputError: in place of the storage's own errors.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise InputError(f"search.storage={shown(storage)}: lost ({_reason(error)}); {advice}") from error


@contextmanager
def storage_errors(what: str, advice: str = "") -> Iterator[None]:
    """Turns the errors of a storage into one line.

    Args:
        what: the beginning of the line: what could not be done with which storage.
        advice: the end of the line.

    Raises:
        InputError: in place of the storage's own errors.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{what} ({_reason(error)}){advice}") from error


def shown(storage: str) -> str:
    """Returns a storage as it may be printed: a database's URL without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


def _reason(error: BaseException) -> str:
    """Returns the first line of what the database's driver said."""
    while isinstance(error, (SQLAlchemyError, StorageInternalError)) and error.__cause__:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def this_worker() -> str:
    """Returns a name for this process that no other process has had."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time()}"


def is_dead(worker: str) -> bool:
    """Tells whether a process is known to have ended; a process of another machine never is.

    Args:
        worker: the process, as `this_worker` named it.
    """
    host, pid, started = worker.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(pid))
        return process.create_time() != float(started) or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
