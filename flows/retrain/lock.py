"""One run at a time, of all processes and machines that share a repository: a ref of git's is the lock.

Whoever creates the ref has it; git does that all or nothing, here or in the remote, so that no other server is needed.
Its commit says whose it is. A holder that has died on this machine, or has been silent for long on another, loses it.
Silence is what the waiting machine has seen by its own clock: times that another machine has written prove nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.common.core.errors import GraftError

from ..runtime import processes
from ..versioning.git import git, try_git

REF = "refs/graft/lock"

BEAT = 60.0
"""Seconds between two signs of life."""

SILENT = 600.0
"""Seconds without a sign of life after which a holder on another machine is taken for dead."""

NOTHING = "0" * 40


@dataclass(frozen=True)
class Holder:
    """Who has the lock.

    Attributes:
        process: by its key.
        since, beat: when it got it, and its last sign of life; ISO 8601 in UTC by the holder's clock, for people.
        page: of its run.
    """

    process: str
    since: str
    beat: str
    page: str

    def words(self) -> str:
        host, pid, _ = self.process.rsplit(":", 2)
        return f"process {pid} on {host}, since {self.since}" + (f", {self.page}" if self.page else "")

    def is_same(self, other: Holder | None) -> bool:
        return other is not None and (self.process, self.since) == (other.process, other.since)


class Busy(GraftError):
    """Another run has the repository."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(
            "another run is at work on this repository",
            got=holder.words(),
            todo="nothing: the next run finds what is new",
        )


class Lost(GraftError):
    """Another run has taken the lock over."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(
            "this run has lost the lock of the repository; it has promoted and pushed nothing since",
            got=f"now held by {holder.words()}" if holder else "held by nobody",
            todo=f"nothing: the next run finds what is new. It happens when {REF} is deleted, or when this machine "
            f"cannot reach the remote for {SILENT / 60:.0f} minutes",
        )


@contextmanager
def alone(
    repo: Path, remote: str, page: str = "", beat: float = BEAT, silent: float = SILENT
) -> Iterator[Callable[[], None]]:
    """Holds the lock of the repository, or of its remote if that is not empty, while the block runs; gives a function
    that checks that it is still held, which raises `Lost` or TransientError.

    Raises:
        Busy: another run has it. To see that one of another machine lives takes up to a minute, its next sign of life.
        TransientError: the remote does not answer.
    """
    place = _Place(repo, remote)
    now = _now()
    holder = Holder(processes.key(processes.me()), now, now, page)
    mine = [_take(place, holder, silent)]
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(place, holder, mine, ended, beat), name="lock", daemon=True)
    beating.start()
    try:
        yield lambda: _check(place, holder)
    finally:
        ended.set()
        beating.join()
        place.swap(mine[0], "")


def _check(place: _Place, holder: Holder) -> None:
    """Asks whose it is, whatever its last sign of life."""
    for _ in range(3):  # a sign of life may come between two questions
        held = place.held()
        found = place.read(held) if held else None
        if holder.is_same(found):
            return
        if found is not None:
            break
    raise Lost(found)


def holder_of(repo: Path, remote: str) -> Holder | None:
    """Who has the lock; none if nobody has."""
    place = _Place(repo, remote)
    held = place.held()
    return place.read(held) if held else None


def _take(place: _Place, holder: Holder, silent: float) -> str:
    token = place.token(holder)
    for _ in range(3):  # it may be given back, or taken, between two questions
        held = place.held()
        other = place.read(held) if held else None
        if other is not None and not _is_dead(place, held, other, silent):
            if place.held():
                raise Busy(other)
            held = ""  # given back while we watched
        if place.swap(held, token):
            return token
    raise Busy(place.read(place.held()) or holder)


def _is_dead(place: _Place, held: str, other: Holder, silent: float) -> bool:
    """Whether its process is gone, or if that runs elsewhere, gives no sign of life while we watch."""
    here = processes.key_runs(other.process)
    if here is not None:
        return not here
    deadline = time.monotonic() + silent
    while time.monotonic() < deadline:
        time.sleep(min(5.0, silent / 20))
        if place.held() != held:
            return False  # a sign of life, or it was given back
    return True


def _beat(place: _Place, holder: Holder, mine: list[str], ended: threading.Event, seconds: float) -> None:
    """Gives signs of life. If one does not get through, the next one will do."""
    while not ended.wait(seconds):
        with contextlib.suppress(GraftError):
            token = place.token(Holder(holder.process, holder.since, _now(), holder.page))
            if place.swap(mine[0], token):
                mine[0] = token
            else:  # the answer of an earlier one was lost, or the lock
                held = place.held()
                mine[0] = held if held and holder.is_same(place.read(held)) else mine[0]


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
