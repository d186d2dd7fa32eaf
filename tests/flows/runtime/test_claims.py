"""Which process uses something, and whether it still runs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from graft.flows.runtime import claims


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The claim of a process that was killed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claims.claim(tmp_path / "killed.json", psutil.Process(process.pid), address="there")
    process.kill()
    process.wait()
    return tmp_path / "killed.json"


def test_a_claim_lasts_as_long_as_its_block_even_one_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "claims" / "one.json"

    with pytest.raises(ZeroDivisionError), claims.claimed(file, address="here"):
        assert claims.read_claim(file)["address"] == "here"
        assert claims.holds(claims.read_claim(file)) is True
        assert claims.held(file.parent)
        raise ZeroDivisionError

    assert not claims.held(file.parent)
    assert claims.read_claim(file) == {}


def test_only_the_claims_of_ended_processes_and_damaged_ones_are_cleared(tmp_path: Path, killed: Path) -> None:
    claims.claim(tmp_path / "mine.json")
    for name, text in {"cut.json": '{"process": "no', "list.json": "[]", "other.json": '{"key": 1}'}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps({"process": "another-machine:1:0"}), encoding="utf-8")

    cleared = {file.name for file in claims.clear_dead(tmp_path)}

    assert cleared == {"killed.json", "cut.json", "list.json", "other.json"}
    assert {file.name for file in tmp_path.iterdir()} == {"mine.json", "elsewhere.json"}
    assert claims.holds(claims.read_claim(elsewhere)) is None


def test_a_process_that_got_the_number_of_an_ended_one_holds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(json.dumps({"process": f"{socket.gethostname()}:{psutil.Process().pid}:never"}), encoding="utf-8")

    assert claims.holds(claims.read_claim(file)) is False
    assert not claims.held(tmp_path)


def test_a_folder_that_does_not_exist_has_no_claims(tmp_path: Path) -> None:
    assert not claims.held(tmp_path / "none")
    assert claims.clear_dead(tmp_path / "none") == []
