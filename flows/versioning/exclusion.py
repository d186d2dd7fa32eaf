"""Keeps DVC's commands away from files that Graft changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from graft.tasks.common.core.errors import TransientError
from graft.tasks.common.core.progress import say
from graft.tasks.dvc_process import wait_for_dvc

from .dvc_config import configuration

TRIES = 10
"""Attempts if other DVC commands always get ahead."""


@contextmanager
def kept_from_dvc(root: Path, path: str) -> Iterator[None]:
    """No DVC command of another process uses a path while the block runs; one that is at work is waited for.

    `graft repro`, `graft run` and imports wait for the end of the block; plain DVC commands fail and name this process.

    Raises:
        GraftError: another command takes too long, or others always get ahead.
    """
    if not (root / ".dvc").is_dir():
        yield
        return
    with ExitStack() as held:
        _hold(root.resolve(), path, held)
        yield


def _hold(root: Path, path: str, held: ExitStack) -> None:
    from dvc.fs import localfs
    from dvc.lock import LockError
    from dvc.rwlock import rwlock

    folder = root / ".dvc" / "tmp"
    folder.mkdir(exist_ok=True)
    hardlinks = bool(configuration(root)["core"].get("hardlink_lock", False))
    for _ in range(TRIES):
        wait_for_dvc(root, say)
        try:
            held.enter_context(rwlock(str(folder), localfs, " ".join(sys.argv), [], [str(root / path)], hardlinks))
            return
        except LockError as error:  # another command began at the same moment
            reason = str(error)
    raise TransientError(f"DVC always has {path} in use", got=reason, todo="try again when no DVC command is at work")
