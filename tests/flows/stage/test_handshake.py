"""A stage and its recorder make sure of each other, and neither waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import pytest

from graft.flows.stage.handshake import address_of, admit, call, listener

KEY = b"k" * 32


@pytest.fixture
def door() -> Iterator[Listener]:
    with listener() as opened:
        yield opened


def answered(door: Listener, key: bytes, limit: float = 30.0) -> list[Connection | Exception]:
    """What became of the next call, filled in by a thread."""
    found: list[Connection | Exception] = []

    def wait() -> None:
        line = door.accept()
        try:
            admit(line, key, limit)
        except (AuthenticationError, EOFError, OSError) as error:
            line.close()
            found.append(error)
        else:
            found.append(line)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    found.append(thread)  # type: ignore[arg-type]
    return found


def result(found: list[Connection | Exception]) -> Connection | Exception:
    found[0].join(20)  # type: ignore[union-attr]
    return found[1]


def test_who_has_the_key_is_let_in(door: Listener) -> None:
    found = answered(door, KEY)

    with call(address_of(door), KEY) as line:
        line.send("hello")
        other = result(found)
        assert isinstance(other, Connection)
        assert other.recv() == "hello"


def test_another_key_is_refused_on_both_sides(door: Listener) -> None:
    found = answered(door, KEY)

    with pytest.raises((AuthenticationError, EOFError, OSError)):
        call(address_of(door), b"another")

    assert isinstance(result(found), AuthenticationError | EOFError | OSError)


def test_a_caller_that_says_nothing_is_given_up(door: Listener) -> None:
    found = answered(door, KEY, limit=0.2)
    started = time.monotonic()

    with Client(address_of(door)):
        assert isinstance(result(found), EOFError | OSError)

    assert time.monotonic() - started < 10


def test_a_caller_that_stops_in_the_middle_is_given_up(door: Listener) -> None:
    found = answered(door, KEY, limit=0.2)

    with Client(address_of(door)) as line:
        line.send_bytes(b"")
        assert isinstance(result(found), AuthenticationError | EOFError | OSError)


def test_an_address_at_which_nothing_is_said_is_given_up(door: Listener) -> None:
    with pytest.raises((EOFError, OSError)):
        call(address_of(door), KEY, limit=0.2)


def test_a_long_folder_of_temporary_files_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))

    with listener() as door:
        found = answered(door, KEY)
        with call(address_of(door), KEY):
            assert isinstance(result(found), Connection)
    assert list(deep.iterdir()) == []
