"""The user name and password of a project's own Prefect server: without them its API would run commands for anyone."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from filelock import FileLock

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.paths import Paths

SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


def login_file(root: Path) -> Path:
    """Where the project keeps the login, which only its owner can read."""
    return Paths(root).state / "prefect-login"


def server_login(root: Path) -> str:
    """`user:password` of the project's server: PREFECT_SERVER_API_AUTH_STRING, or one that is created at first use.

    Raises:
        GraftError: the project's own cannot be read.
    """
    return os.environ.get(SERVER) or _own_login(root)


def use_login(root: Path) -> None:
    """Sets the login of the project's server for this process and its children, unless you have set one."""
    known = os.environ.get(SERVER) or os.environ.get(CLIENT) or _own_login(root)
    for name in (SERVER, CLIENT):
        os.environ.setdefault(name, known)


def login_hint(root: Path) -> str:
    """One line on how to log in to the pages. It does not hold the password: output is often kept as a log."""
    own = login_file(root)
    if own.is_file() and server_login(root) == _read(own):
        return f"Log in to Prefect with the content of {own}"
    return f"Log in to Prefect with the value of {SERVER}"


def _own_login(root: Path) -> str:
    file = login_file(root)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                _make(file)
    return _read(file)


def _make(file: Path) -> None:
    """The whole file at once, never readable by others."""
    part = file.with_suffix(".part")
    part.unlink(missing_ok=True)  # left by a process that was killed
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
        opened.write(f"graft:{secrets.token_urlsafe(32)}\n")
    part.replace(file)


def _read(file: Path) -> str:
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o077:
            file.chmod(0o600)
        text = file.read_text(encoding="utf-8").strip()
    except PermissionError:
        raise GraftError(
            "the login of the project's Prefect server cannot be read",
            got=f"{file} belongs to another user",
            todo=f"run as that user, or set {SERVER} and {CLIENT}",
        ) from None
    user, _, password = text.partition(":")
    if not (user and password):
        raise GraftError(
            "the login of the project's Prefect server is damaged",
            got=str(file),
            allowed="user:password",
            todo="stop the project's servers and delete the file; a new one is created",
        )
    return text
