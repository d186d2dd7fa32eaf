"""`graft serve`: checks what was asked for, then starts one process or several."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

from graft.tasks.common.core.errors import GraftError, ParamsError

from .guard import allowed_hosts, is_loopback
from .settings import Settings

KEY = "GRAFT_SERVE_KEY"
"""The variable with the key that clients need."""

SHORTEST = 16
"""Characters of a key."""


def start(settings: Settings, key_file: Path | None, hosts: list[str], keep: list[str], *, no_key: bool) -> None:
    """Serves until the process is told to end.

    Raises:
        GraftError: the settings contradict each other, the port is in use, or the model cannot be loaded.
    """
    unsure, share = policy(keep)
    settings = replace(
        settings,
        key="" if no_key else read_key(key_file),
        hosts=allowed_hosts(settings.host, hosts),
        keep_unsure=unsure,
        keep_random=share,
    )
    check(settings, no_key=no_key)
    from .process import BACKLOG, bind, say_where, serve

    if settings.workers > 1:
        from .workers import supervise

        supervise(settings)
        return
    bound = bind(settings.host, settings.port)
    bound.listen(BACKLOG)  # from here on a client waits, and is not turned away
    say_where(settings.host, bound.getsockname()[1])
    serve(settings, bound)


def check(settings: Settings, *, no_key: bool) -> None:
    """Raises:
    ParamsError: the settings are not safe, or contradict each other.
    """
    if not no_key:
        need_key(settings.host, settings.key, "; or --no-key if something in front of it checks who asks")
    if settings.queue < settings.max_images:
        raise ParamsError(
            "--queue must hold the images of one request",
            got=settings.queue,
            allowed=f"--max-images {settings.max_images} or more",
        )
    if (settings.keep_unsure or settings.keep_random) and not settings.log:
        raise ParamsError("--keep needs a folder", got="no --log", todo="name one with --log FOLDER")


def need_key(host: str, key: str, otherwise: str = "") -> None:
    """Raises:
    ParamsError: others can reach the server, and need no key.
    """
    if not key and not is_loopback(host):
        raise ParamsError(
            "a server that others can reach needs a key",
            got=f"--host {host}, and no key",
            allowed=f"--key-file FILE, or the variable {KEY}{otherwise}",
            todo="python -c 'import secrets; print(secrets.token_urlsafe(32))' > serve.key",
        )


def read_key(file: Path | None) -> str:
    """From a file, or the environment; empty without both.

    Raises:
        ParamsError: the file cannot be read, or the key is too short to be a secret.
    """
    if file is None:
        key, where = os.environ.get(KEY, "").strip(), KEY
    else:
        key, where = _content(file), str(file)
    if (key or file is not None) and (len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key):
        raise ParamsError(
            f"the key in {where} cannot be used",
            got=f"{len(key)} characters",
            allowed=f"one line of {SHORTEST} or more ASCII characters without spaces",
            todo="python -c 'import secrets; print(secrets.token_urlsafe(32))' > serve.key",
        )
    return key


def _content(file: Path) -> str:
    try:
        if stat.S_IMODE(file.stat().st_mode) & 0o004:
            raise ParamsError(f"every user of this machine can read {file}", todo=f"chmod 600 {file}")
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise ParamsError(f"the key file {file} cannot be read", got=getattr(error, "strerror", "not ASCII")) from None


def policy(keep: list[str]) -> tuple[bool, float]:
    """Whether unsure pictures are kept, and the share of all that is.

    Raises:
        ParamsError: a policy is not known.
    """
    share = 0.0
    for word in keep:
        kind, _, number = word.partition(":")
        if kind == "random":
            share = _share(word, number)
        elif word not in ("unsure", "none"):
            raise _unknown(word)
    return "unsure" in keep, share


def _share(word: str, number: str) -> float:
    try:
        share = float(number)
    except ValueError:
        raise _unknown(word) from None
    if not 0 < share <= 1:
        raise _unknown(word)
    return share


def _unknown(word: str) -> GraftError:
    return ParamsError(
        "--keep is not understood", got=word, allowed="unsure, none, or random:SHARE with 0 < SHARE <= 1"
    )
