"""One run at a time, across processes and clones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from projects import ROOT, wait_for

from graft.flows.retrain import lock
from graft.flows.retrain.lock import Busy, Holder, Lost, alone, holder_of
from graft.flows.runtime import processes
from graft.flows.versioning.git import git
from graft.tasks.common.core.errors import TransientError


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


def test_of_two_clones_one_works_and_the_other_names_it(clones: tuple[Path, Path]) -> None:
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
from graft.flows.retrain.lock import alone
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
    """Has a process of another machine hold the lock, or send a heartbeat; it has a clock of its own."""
    content = json.dumps(asdict(Holder("elsewhere:7:boot/1", "then", beat.isoformat(timespec="seconds"), "")))
    tree = git(clone, "hash-object", "-t", "tree", "-w", "--stdin", doing="a test")
    token = git(clone, "commit-tree", tree, "-m", content, doing="a test")
    git(clone, "push", "--quiet", "--force", "origin", f"{token}:{lock.REF}", doing="a test")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens elsewhere, one thing after the other, while this machine watches the holder."""
    events: list[Callable[[], object]] = []

    def happens(_: float) -> None:
        if events:
            events.pop(0)()

    monkeypatch.setattr(lock.time, "sleep", happens)
    return events


def test_a_holder_whose_clock_is_behind_keeps_the_lock_as_long_as_it_gives_signs_of_life(
    clones: tuple[Path, Path], watched: list[Callable[[], object]]
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    elsewhere(clones[0], long_ago)
    watched.append(lambda: elsewhere(clones[0], long_ago + timedelta(seconds=60)))
    with pytest.raises(Busy, match="process 7 on elsewhere"), alone(clones[1], "origin"):
        raise AssertionError("both work")
    assert not watched


def test_a_holder_on_another_machine_that_stays_silent_loses_the_lock_whatever_its_clock_said(
    clones: tuple[Path, Path],
) -> None:
    elsewhere(clones[0], datetime.now(UTC) + timedelta(hours=2))
    with alone(clones[1], "origin", silent=0.2):
        assert holder_of(clones[1], "origin").process != "elsewhere:7:boot/1"


def test_a_lock_that_is_given_back_while_it_is_watched_is_taken(
    clones: tuple[Path, Path], watched: list[Callable[[], object]]
) -> None:
    elsewhere(clones[0], datetime.now(UTC))
    watched.append(lambda: git(clones[0], "push", "--quiet", "origin", f":{lock.REF}", doing="a test"))
    with alone(clones[1], "origin") as still_ours:
        still_ours()


@pytest.mark.parametrize("remote", ["origin", ""])
def test_a_lost_lock_is_noticed(clones: tuple[Path, Path], remote: str) -> None:
    repo, where = clones[0], (["push", "--quiet", "origin", f":{lock.REF}"], ["update-ref", "-d", lock.REF])
    with alone(repo, remote, beat=0.1) as still_ours:
        still_ours()
        git(repo, *where[not remote], doing="a test")
        with pytest.raises(Lost, match="held by no process"):
            still_ours()
    with alone(repo, remote) as still_ours, pytest.raises(Lost, match="now held by process 7 on elsewhere"):
        git(repo, *where[not remote], doing="a test")
        if remote:
            elsewhere(clones[1], datetime.now(UTC))
        else:
            elsewhere(repo, datetime.now(UTC))
            git(repo, "fetch", "--quiet", "origin", f"{lock.REF}:{lock.REF}", doing="a test")
        still_ours()


def test_signs_of_life_do_not_look_like_a_lost_lock(clones: tuple[Path, Path]) -> None:
    with alone(clones[0], "origin", beat=0.01) as still_ours:
        for _ in range(10):
            still_ours()


def test_who_works_for_long_gives_signs_of_life(clones: tuple[Path, Path]) -> None:
    with alone(clones[0], "origin", beat=0.2):
        first = holder_of(clones[1], "origin")
        later = wait_for(lambda: (now := holder_of(clones[1], "origin")).beat != first.beat and now, seconds=30)
        assert replace(later, beat=first.beat) == first
    assert holder_of(clones[0], "origin") is None


def test_a_sign_of_life_whose_answer_was_lost_does_not_end_the_others(
    clones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, lost = lock._Ref.swap, []

    def loses_one_answer(place: lock._Ref, old: str, new: str) -> bool:
        done = whole(place, old, new)
        if done and old and new and not lost:
            lost.append(new)
            return False
        return done

    monkeypatch.setattr(lock._Ref, "swap", loses_one_answer)
    with alone(clones[0], "origin", beat=0.1) as still_ours:
        first = wait_for(lambda: lost and holder_of(clones[1], "origin"), seconds=30)
        wait_for(lambda: holder_of(clones[1], "origin").beat != first.beat, seconds=30)
        still_ours()
    assert holder_of(clones[0], "origin") is None, "it was given back"


def test_a_remote_that_does_not_answer_may_answer_later(clones: tuple[Path, Path]) -> None:
    git(clones[0], "remote", "set-url", "origin", str(clones[0] / "nowhere"), doing="a test")
    with pytest.raises(TransientError, match="reading the lock"), alone(clones[0], "origin"):
        raise AssertionError("nobody was asked")
