"""One run at a time, across processes and clones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from projects import ROOT, wait_for

from flows import lock, processes
from flows.lock import Busy, Holder, alone, holder_of
from flows.versioning import git, try_git
from tasks.common.errors import TransientError


def make_repo(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch", "main", doing="a test")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "first", doing="a test")
    return folder


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """Two clones of one remote."""
    make_repo(tmp_path / "origin")
    found = []
    for name in ("a", "b"):
        git(tmp_path, "clone", "--quiet", str(tmp_path / "origin"), name, doing="a test")
        found.append(tmp_path / name)
    return found[0], found[1]


def test_of_two_clones_one_works_and_the_other_is_told_who_does(clones: tuple[Path, Path]) -> None:
    with alone(clones[0], "origin", "http://page"):
        with pytest.raises(Busy) as busy, alone(clones[1], "origin"):
            raise AssertionError("both work")
        assert str(busy.value.got).startswith("process ")
        assert "http://page" in str(busy.value.got)
    with alone(clones[1], "origin"):
        assert holder_of(clones[0], "origin").process == processes.key(processes.me())
    assert holder_of(clones[0], "origin") is None


def test_without_a_remote_the_repository_itself_is_locked(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    with alone(repo, ""), pytest.raises(Busy), alone(repo, ""):
        raise AssertionError("both work")
    assert holder_of(repo, "") is None


def test_a_failure_gives_the_lock_back(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    with pytest.raises(ValueError, match="trouble"), alone(repo, ""):
        raise ValueError("trouble")
    assert holder_of(repo, "") is None


HOLD = """
import sys, time
from pathlib import Path
from flows.lock import alone
with alone(Path(sys.argv[1]), "origin"):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_a_holder_that_was_killed_on_this_machine_loses_it_at_once(clones: tuple[Path, Path]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(clones[0])], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(Busy), alone(clones[1], "origin"):
        raise AssertionError("both work")
    process.kill()
    process.wait()
    with alone(clones[1], "origin"):
        assert holder_of(clones[1], "origin").process == processes.key(processes.me())


def elsewhere(clone: Path, beat: datetime) -> None:
    """Has a process of another machine hold the lock."""
    when = beat.isoformat(timespec="seconds")
    told = json.dumps(asdict(Holder("elsewhere:7:boot/1", when, when, "")))
    tree = git(clone, "hash-object", "-t", "tree", "-w", "--stdin", doing="a test")
    token = git(clone, "commit-tree", tree, "-m", told, doing="a test")
    git(clone, "push", "--quiet", "origin", f"{token}:{lock.REF}", doing="a test")


def test_a_holder_on_another_machine_has_it_until_it_is_silent_for_long(clones: tuple[Path, Path]) -> None:
    elsewhere(clones[0], datetime.now(UTC))
    with pytest.raises(Busy, match="process 7 on elsewhere"), alone(clones[1], "origin"):
        raise AssertionError("both work")
    try_git(clones[0], "push", "--quiet", "origin", f":{lock.REF}")
    elsewhere(clones[0], datetime.now(UTC) - timedelta(seconds=lock.SILENT + 5))
    with alone(clones[1], "origin"):
        assert holder_of(clones[1], "origin").process != "elsewhere:7:boot/1"


def test_who_works_for_long_gives_signs_of_life(clones: tuple[Path, Path]) -> None:
    with alone(clones[0], "origin", beat=0.2):
        first = holder_of(clones[1], "origin")
        later = wait_for(lambda: (now := holder_of(clones[1], "origin")).beat != first.beat and now, seconds=30)
        assert replace(later, beat=first.beat) == first
    assert holder_of(clones[0], "origin") is None


def test_a_remote_that_does_not_answer_may_answer_later(clones: tuple[Path, Path]) -> None:
    git(clones[0], "remote", "set-url", "origin", str(clones[0] / "nowhere"), doing="a test")
    with pytest.raises(TransientError, match="who is at work"), alone(clones[0], "origin"):
        raise AssertionError("nobody was asked")
