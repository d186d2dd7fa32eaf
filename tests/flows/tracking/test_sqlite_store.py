"""MLflow's store as a file: whole or absent, and errors that name it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from graft.flows.maintenance.doctor import _mlflow
from graft.flows.tracking import sqlite_store
from graft.flows.tracking.sqlite_store import check_readable, check_writable, ensure_store
from graft.flows.tracking.store import has_store
from graft.tasks.common.core.errors import GraftError, TransientError

ROOT = Path(__file__).resolve().parents[3]

CREATE = """
import sys
from pathlib import Path
import mlflow.store.db.utils
from graft.flows.tracking.sqlite_store import ensure_store
print("ready", flush=True)
ensure_store(Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def creation_of(root: Path) -> subprocess.Popen[str]:
    """A process that creates the store, once it has loaded MLflow."""
    process = subprocess.Popen(
        [sys.executable, "-c", CREATE, str(root)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def tables(file: Path) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0])


def test_killed_at_any_moment_the_store_is_absent_and_the_next_run_creates_it(tmp_path: Path) -> None:
    moments = ("the lock", "the first table", "half of the tables")
    for moment in moments:
        root = tmp_path / moment
        root.mkdir()
        process = creation_of(root)
        while process.poll() is None and not _reached(root, moment):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not has_store(root), moment

    root = tmp_path / moments[-1]
    assert list(root.glob(".mlflow.db.*.part")), "it was killed in the middle"
    ensure_store(root)

    assert tables(root / "mlflow.db") > 20
    assert not list(root.glob(".mlflow.db.*.part*-journal"))
    assert MlflowClient(f"sqlite:///{root}/mlflow.db").search_experiments()


def _reached(root: Path, moment: str) -> bool:
    parts = list(root.glob(".mlflow.db.*.part"))
    if moment == "the lock":
        return (root / ".graft" / "mlflow.lock").exists()
    return any(part.stat().st_size > (0 if moment == "the first table" else 100_000) for part in parts)


def test_two_processes_that_create_it_at_once_make_one_store(tmp_path: Path) -> None:
    both = [creation_of(tmp_path) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error

    assert MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


def test_an_empty_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert not has_store(tmp_path)

    ensure_store(tmp_path)

    assert has_store(tmp_path)


def test_a_store_that_another_process_has_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "WAIT", 0.1)
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("CREATE TABLE one (a)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match=r"has locked MLflow's store .*mlflow\.db"):
            check_writable(file)
        with pytest.raises(TransientError, match="has locked MLflow's store"):
            ensure_store(tmp_path)
        other.execute("ROLLBACK")
    check_writable(file)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)

    with pytest.raises(GraftError, match=r"mlflow\.db cannot be read[\s\S]*move it away"):
        ensure_store(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_only_be_read_is_named_when_something_is_to_be_written(tmp_path: Path) -> None:
    ensure_store(tmp_path)
    (tmp_path / "mlflow.db").chmod(0o444)

    check_readable(tmp_path / "mlflow.db")
    with pytest.raises(GraftError, match=r"mlflow\.db cannot be written"):
        check_writable(tmp_path / "mlflow.db")


def test_doctor_finds_a_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "WAIT", 0.1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").touch()
    ensure_store(tmp_path)
    assert _mlflow(tmp_path).state == "ok"
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        finding = _mlflow(tmp_path)
        other.execute("ROLLBACK")

    assert (finding.state, "locked" in finding.found) == ("fail", True)
    assert "fuser" in finding.todo


def test_a_place_where_no_file_can_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(GraftError, match=r"mlflow\.db cannot be written"):
        ensure_store(tmp_path / "file")


def test_another_store_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")

    ensure_store(tmp_path)

    assert list(tmp_path.iterdir()) == []
