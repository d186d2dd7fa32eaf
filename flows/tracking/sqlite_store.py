"""MLflow's store as an SQLite file: whole or absent, and errors that name the file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock, Timeout

from graft.tasks.common.core.errors import GraftError, TransientError
from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.paths import Paths

from .store import has_content, sqlite_file

WAIT = 30.0
"""Seconds to wait for another process that writes to the store."""

CREATION = 120.0
"""Seconds to wait for another process that creates the store."""


def ensure_store(root: Path) -> None:
    """Creates the store if it is to be an SQLite file and does not exist; else checks that it can be read.

    MLflow creates its tables in place, and a process that is killed meanwhile would leave a store in which every later
    run fails. So the file is created under a temporary name and then renamed.

    Raises:
        TransientError: another process has locked the file for too long.
        GraftError: it cannot be created, or is no database.
    """
    file = sqlite_file(root)
    if file is None:
        return
    try:
        if not has_content(file):
            _create(file, Paths(root).state)
    except OSError as error:
        raise _not_creatable(file, error.strerror or type(error).__name__) from error
    check_readable(file)


def _create(file: Path, state: Path) -> None:
    target = file.resolve()  # a link stays one
    state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(state / "mlflow.lock", timeout=CREATION):
            if not has_content(target):
                _create_alone(target)
    except Timeout as error:
        raise TransientError(
            f"another process has been creating {file} for more than {CREATION:.0f} s",
            todo="wait until it has ended, then try again",
        ) from error


def _create_alone(target: Path) -> None:
    for stale in target.parent.glob(f".{target.name}.*.part-journal"):
        stale.unlink(missing_ok=True)  # SQLite's, of a process that was killed
    with whole_file(target) as part:
        check_writable(part)  # MLflow tries for minutes to open a file that cannot be opened
        from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

        engine = create_sqlalchemy_engine(f"sqlite:///{part}")
        try:
            _initialize_tables(engine)
        finally:
            engine.dispose()


def check_readable(file: Path) -> None:
    """Raises:
    TransientError: another process has locked the file for too long.
    GraftError: it is no database.
    """
    _try(file, "SELECT count(*) FROM sqlite_master")


def check_writable(file: Path) -> None:
    """Raises:
    TransientError: another process has locked the file for too long.
    GraftError: it is no database, or cannot be written.
    """
    _try(file, "BEGIN IMMEDIATE", "ROLLBACK")


def _try(file: Path, *statements: str) -> None:
    try:
        with closing(sqlite3.connect(file, timeout=WAIT, isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement).fetchall()
    except sqlite3.Error as error:
        raise _unusable(file, str(error)) from error


def _unusable(file: Path, reason: str) -> GraftError:
    if "locked" in reason:
        return TransientError(
            f"another process has locked MLflow's store {file}",
            got=f"{reason}, for more than {WAIT:.0f} s",
            todo=f"wait until it has ended, or end it (`fuser {file}` names it); then try again",
        )
    if "readonly" in reason or "unable to open" in reason:
        return _not_creatable(file, reason)
    return GraftError(
        f"MLflow's store {file} cannot be read",
        got=reason,
        allowed="an SQLite database",
        todo="restore it from a backup, or move it away: a new one is created, without the earlier runs and models",
    )


def _not_creatable(file: Path, reason: str) -> GraftError:
    return GraftError(
        f"MLflow's store {file} cannot be written",
        got=reason,
        todo="make the file and its folder writable for this user, or name another store in MLFLOW_TRACKING_URI",
    )
