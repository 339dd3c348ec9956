"""Opens the storage of a study, which outlives its processes and may be shared by several machines."""

from __future__ import annotations

import os
import socket
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
    opened = RDBStorage(storage, engine_kwargs={"connect_args": {"timeout": SECONDS_TO_WAIT}} if is_sqlite else {})
    if is_sqlite:
        event.listen(opened.engine, "connect", _write_ahead)
        opened.engine.dispose()  # closes the connections made before
    return opened


def _write_ahead(connection: Any, _: Any) -> None:
    """Spares a disk flush at each commit, of which a trial has some twenty; a killed process still loses none."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


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
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"{what} ({reason}){advice}") from error


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
        return psutil.Process(int(pid)).create_time() != float(started)
    except psutil.NoSuchProcess:
        return True
