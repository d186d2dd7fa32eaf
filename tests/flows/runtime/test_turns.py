"""One process at a time, and a line that names it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graft.flows.runtime.turns import turn
from graft.tasks.common.core.errors import TransientError

HOLDER = """
import sys
from pathlib import Path
from graft.flows.runtime.turns import turn

with turn(Path(sys.argv[1]), "an import", 0.0, print):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def test_who_waits_says_for_whom_and_gets_the_next_turn(tmp_path: Path) -> None:
    lines: list[str] = []
    with holder(tmp_path / "lock") as other:

        def tell(line: str) -> None:
            lines.append(line)
            other.communicate()

        with turn(tmp_path / "lock", "an import", 120.0, tell):
            pass
    (line,) = lines
    assert line.startswith(f"waiting for an import: `-c {tmp_path / 'lock'}` (process {other.pid} on ")
    assert line.endswith(", at most 2 minutes")


def test_a_holder_that_does_not_end_is_named_in_the_error(tmp_path: Path) -> None:
    with (
        holder(tmp_path / "lock") as other,
        pytest.raises(TransientError, match=rf"an import is still at work[\s\S]*process {other.pid}[\s\S]*0.1 s"),
        turn(tmp_path / "lock", "an import", 0.1, lambda _: None),
    ):
        raise AssertionError("it is not our turn")


def test_a_killed_holder_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as other:
        other.kill()
        other.wait()

        with turn(tmp_path / "lock", "an import", 0.0, lambda line: pytest.fail(line)):
            pass


def test_a_turn_may_be_taken_again_within_itself(tmp_path: Path) -> None:
    file, note = tmp_path / "one.lock", tmp_path / "one.json"
    with turn(file, "a promotion", 0.0, print):
        with turn(file, "a promotion", 0.0, print):
            pass
        assert note.exists(), "the outer one still holds it"
    assert not note.exists()
