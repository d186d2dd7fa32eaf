"""How long MLflow tries to reach its server."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from graft.flows.tracking.patience import RETRIES, TIMEOUT, be_patient, first_request
from graft.flows.tracking.tracker import Tracker
from graft.tasks.common.core.errors import TransientError


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (RETRIES, TIMEOUT):
        monkeypatch.setenv(name, "")  # so that what is set below is unset again
        monkeypatch.delenv(name)


def test_the_first_request_has_shorter_limits_than_the_others() -> None:
    with first_request():
        first = int(os.environ[TIMEOUT])
    assert TIMEOUT not in os.environ
    be_patient()

    assert first < int(os.environ[TIMEOUT])


def test_a_child_that_inherits_the_later_limits_has_the_shorter_ones_first() -> None:
    be_patient()
    later = os.environ[TIMEOUT]

    with first_request():
        assert int(os.environ[TIMEOUT]) < int(later)

    assert os.environ[TIMEOUT] == later


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "300")

    with first_request():
        assert os.environ[TIMEOUT] == "300"
    be_patient()

    assert os.environ[TIMEOUT] == "300"


def test_a_server_that_is_down_is_reported_within_half_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()

    with pytest.raises(TransientError, match=r"MLflow cannot be reached(.|\n)*nothing listens there"):
        Tracker(tmp_path)

    assert time.monotonic() - started < 30


def test_a_server_that_says_nothing_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(TransientError, match=r"MLflow cannot be reached(.|\n)*says nothing: Read timed out"):
            Tracker(tmp_path)
