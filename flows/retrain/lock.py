"""One run at a time for all processes and machines that share a repository: a git ref is the lock.

The process that creates the ref holds the lock. Git creates a ref atomically, here or in the remote, so that no other
server is needed. The ref's commit names the holder. A holder on this machine loses the lock when its process has ended,
one on another machine when it has been silent for long. The waiting machine measures the silence by its own clock,
since times that another machine has written prove nothing.
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

from graft.tasks.common.core.errors import GraftError

from ..runtime import processes
from ..versioning.git import git, try_git

REF = "refs/graft/lock"

BEAT = 60.0
"""Seconds between two heartbeats."""

SILENT = 600.0
"""Seconds without a heartbeat after which a holder on another machine counts as crashed."""

NOTHING = "0" * 40


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock.

    Attributes:
        process: its key.
        since, beat: when it got the lock, and its last heartbeat; ISO 8601 in UTC by the holder's clock, for display.
        page: the address of its run.
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
    """Another run holds the lock."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(
            "another run is at work on this repository",
            got=holder.words(),
            todo="nothing: the next run finds what is new",
        )


class Lost(GraftError):
    """Another run has taken over the lock."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(
            "this run has lost the lock of the repository, and has not promoted or pushed anything since",
            got=f"now held by {holder.words()}" if holder else "held by no process",
            todo=f"nothing: the next run finds what is new. It happens when {REF} is deleted, or when this machine "
            f"cannot reach the remote for {SILENT / 60:.0f} minutes",
        )


@contextmanager
def alone(
    repo: Path, remote: str, page: str = "", beat: float = BEAT, silent: float = SILENT
) -> Iterator[Callable[[], None]]:
    """Holds the lock of the repository, or of its remote if that is not empty, while the block runs. Yields a function
    that raises `Lost` or TransientError if the lock is no longer held.

    Raises:
        Busy: another run holds it. For a holder on another machine this takes up to a minute, until its next heartbeat.
        TransientError: the remote does not answer.
    """
    ref = _Ref(repo, remote)
    now = _now()
    holder = Holder(processes.key(processes.me()), now, now, page)
    mine = [_take(ref, holder, silent)]
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(ref, holder, mine, ended, beat), name="lock", daemon=True)
    beating.start()
    try:
        yield lambda: _check(ref, holder)
    finally:
        ended.set()
        beating.join()
        ref.swap(mine[0], "")


def _check(ref: _Ref, holder: Holder) -> None:
    """Reads the holder, whatever its last heartbeat."""
    for _ in range(3):  # a heartbeat may come between the two calls
        held = ref.held()
        found = ref.read(held) if held else None
        if holder.is_same(found):
            return
        if found is not None:
            break
    raise Lost(found)


def holder_of(repo: Path, remote: str) -> Holder | None:
    """The holder of the lock; None if it is free."""
    ref = _Ref(repo, remote)
    held = ref.held()
    return ref.read(held) if held else None


def _take(ref: _Ref, holder: Holder, silent: float) -> str:
    token = ref.token(holder)
    for _ in range(3):  # it may be released, or taken, between two calls
        held = ref.held()
        other = ref.read(held) if held else None
        if other is not None and not _has_crashed(ref, held, other, silent):
            if ref.held():
                raise Busy(other)
            held = ""  # released in the meantime
        if ref.swap(held, token):
            return token
    raise Busy(ref.read(ref.held()) or holder)


def _has_crashed(ref: _Ref, held: str, other: Holder, silent: float) -> bool:
    """Whether its process has ended, or, on another machine, sends no heartbeat within `silent` seconds."""
    here = processes.key_runs(other.process)
    if here is not None:
        return not here
    deadline = time.monotonic() + silent
    while time.monotonic() < deadline:
        time.sleep(min(5.0, silent / 20))
        if ref.held() != held:
            return False  # a heartbeat, or it was released
    return True


def _beat(ref: _Ref, holder: Holder, mine: list[str], ended: threading.Event, seconds: float) -> None:
    """Sends heartbeats. One that fails is not repeated: the next one follows."""
    while not ended.wait(seconds):
        with contextlib.suppress(GraftError):
            token = ref.token(Holder(holder.process, holder.since, _now(), holder.page))
            if ref.swap(mine[0], token):
                mine[0] = token
            else:  # the answer to an earlier one was lost, or the lock was
                held = ref.held()
                mine[0] = held if held and holder.is_same(ref.read(held)) else mine[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Ref:
    """The ref, in the repository itself or in its remote."""

    def __init__(self, repo: Path, remote: str) -> None:
        self._repo, self._remote = repo, remote

    def held(self) -> str:
        """The commit of the ref; empty if it does not exist."""
        if self._remote:
            listed = git(self._repo, "ls-remote", self._remote, REF, doing="reading the lock")
            return listed.split()[0] if listed else ""
        done = try_git(self._repo, "rev-parse", "--verify", "--quiet", REF)
        return done.stdout.strip()

    def read(self, token: str) -> Holder | None:
        """The holder; None if the ref has changed since, or was not written by Graft."""
        if self._remote and try_git(self._repo, "cat-file", "-e", token).returncode:
            try_git(self._repo, "fetch", "--quiet", "--no-tags", self._remote, REF)
        done = try_git(self._repo, "show", "--no-patch", "--format=%B", token)
        try:
            return Holder(**json.loads(done.stdout))
        except (ValueError, TypeError):
            return None

    def token(self, holder: Holder) -> str:
        tree = git(self._repo, "hash-object", "-t", "tree", "-w", "--stdin", doing="creating the lock")
        return git(self._repo, "commit-tree", tree, "-m", json.dumps(asdict(holder)), doing="creating the lock")

    def swap(self, old: str, new: str) -> bool:
        """Moves the ref from one commit to another, empty for none; returns whether it was as expected."""
        if self._remote:
            lease = f"--force-with-lease={REF}:{old}"
            done = try_git(self._repo, "push", "--quiet", "--no-verify", lease, self._remote, f"{new}:{REF}")
        elif new:
            done = try_git(self._repo, "update-ref", REF, new, old or NOTHING)
        else:
            done = try_git(self._repo, "update-ref", "-d", REF, old)
        return done.returncode == 0
