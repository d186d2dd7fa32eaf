"""One run at a time, of all processes and machines that share a repository: a ref of git's is the lock.

Whoever creates the ref has it; git does that all or nothing, here or in the remote, so that no other server is needed.
Its commit says whose it is. A holder that has died on this machine, or has been silent for long on another, loses it.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.common.errors import GraftError

from . import processes
from .versioning import git, try_git

REF = "refs/graft/lock"

BEAT = 60.0
"""Seconds between two signs of life."""

SILENT = 600.0
"""Seconds of silence after which a holder on another machine is taken for dead."""

NOTHING = "0" * 40


@dataclass(frozen=True)
class Holder:
    """Who has the lock.

    Attributes:
        process: by its key.
        since, beat: when it got it, and its last sign of life; ISO 8601 in UTC.
        page: of its run.
    """

    process: str
    since: str
    beat: str
    page: str

    def words(self) -> str:
        host, pid, _ = self.process.rsplit(":", 2)
        return f"process {pid} on {host}, since {self.since}" + (f", {self.page}" if self.page else "")

    def is_dead(self) -> bool:
        here = processes.key_runs(self.process)
        if here is not None:
            return not here
        return (datetime.now(UTC) - datetime.fromisoformat(self.beat)).total_seconds() > SILENT


class Busy(GraftError):
    """Another run has the repository."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(
            "another run is at work on this repository",
            got=holder.words(),
            todo="nothing: the next run finds what is new",
        )


@contextmanager
def alone(repo: Path, remote: str, page: str = "", beat: float = BEAT) -> Iterator[None]:
    """Holds the lock of the repository, or of its remote if that is not empty, while the block runs.

    Raises:
        Busy: another run has it.
        TransientError: the remote does not answer.
    """
    place = _Place(repo, remote)
    now = _now()
    holder = Holder(processes.key(processes.me()), now, now, page)
    mine = [_take(place, holder)]
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(place, holder, mine, ended, beat), name="lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        place.swap(mine[0], "")


def holder_of(repo: Path, remote: str) -> Holder | None:
    """Who has the lock; none if nobody has."""
    place = _Place(repo, remote)
    held = place.held()
    return place.read(held) if held else None


def _take(place: _Place, holder: Holder) -> str:
    token = place.token(holder)
    for _ in range(3):  # it may be given back, or taken, between two questions
        held = place.held()
        other = place.read(held) if held else None
        if other is not None and not other.is_dead():
            raise Busy(other)
        if place.swap(held, token):
            return token
    raise Busy(place.read(place.held()) or holder)


def _beat(place: _Place, holder: Holder, mine: list[str], ended: threading.Event, seconds: float) -> None:
    """Signs of life. One that does not get through is made up for by the next."""
    while not ended.wait(seconds):
        with contextlib.suppress(GraftError):
            token = place.token(Holder(holder.process, holder.since, _now(), holder.page))
            if place.swap(mine[0], token):
                mine[0] = token


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Place:
    """Where the ref is: in the repository itself, or in its remote."""

    def __init__(self, repo: Path, remote: str) -> None:
        self._repo, self._remote = repo, remote

    def held(self) -> str:
        """The commit of the ref; empty if there is none."""
        if self._remote:
            said = git(self._repo, "ls-remote", self._remote, REF, doing="asking who is at work")
            return said.split()[0] if said else ""
        done = try_git(self._repo, "rev-parse", "--verify", "--quiet", REF)
        return done.stdout.strip()

    def read(self, token: str) -> Holder | None:
        """Whose it is; none if it has changed hands meanwhile, or is not Graft's."""
        if self._remote and try_git(self._repo, "cat-file", "-e", token).returncode:
            try_git(self._repo, "fetch", "--quiet", "--no-tags", self._remote, REF)
        done = try_git(self._repo, "show", "--no-patch", "--format=%B", token)
        try:
            return Holder(**json.loads(done.stdout))
        except (ValueError, TypeError):
            return None

    def token(self, holder: Holder) -> str:
        tree = git(self._repo, "hash-object", "-t", "tree", "-w", "--stdin", doing="making a lock")
        return git(self._repo, "commit-tree", tree, "-m", json.dumps(asdict(holder)), doing="making a lock")

    def swap(self, old: str, new: str) -> bool:
        """From one commit to another, empty for none; whether the ref was as expected."""
        if self._remote:
            lease = f"--force-with-lease={REF}:{old}"
            done = try_git(self._repo, "push", "--quiet", "--no-verify", lease, self._remote, f"{new}:{REF}")
        elif new:
            done = try_git(self._repo, "update-ref", REF, new, old or NOTHING)
        else:
            done = try_git(self._repo, "update-ref", "-d", REF, old)
        return done.returncode == 0
