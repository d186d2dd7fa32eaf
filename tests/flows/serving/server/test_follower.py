"""The alias moves while clients ask."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from projects import Project, Rerun, wait_for
from server_process import Served, serving

from graft.flows.serving.server.desk import Desk
from graft.flows.serving.server.follower import Follower
from graft.flows.serving.server.metrics import Metrics
from graft.flows.serving.server.settings import Settings
from graft.tasks.common.core.errors import GraftError


@pytest.fixture
def two_versions(rerun: Rerun, tmp_path: Path) -> Project:
    return rerun.copy(tmp_path / "project")


class Load:
    """Clients that ask without a break; `answers` counts statuses and versions."""

    def __init__(self, served: Served, picture: bytes) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(served, picture)) for _ in range(4)]

    def _ask(self, served: Served, picture: bytes) -> None:
        while not self._ended.is_set():
            answer = served.ask("POST", "/predict", picture)
            version = answer.document["model"]["version"] if answer.status == 200 else answer.body.decode()
            self.answers[answer.status, version] += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)


def test_a_promotion_swaps_the_model_and_loses_no_request(two_versions: Project, picture: bytes) -> None:
    client = two_versions.mlflow()
    client.set_registered_model_alias("graft", "champion", "1")
    with serving(two_versions.root, "--poll", "0.2") as served, Load(served, picture) as load:
        wait_for(lambda: load.answers[200, "1"], seconds=30)
        client.set_registered_model_alias("graft", "champion", "2")
        wait_for(lambda: load.answers[200, "2"], seconds=60)
        assert served.metric('graft_model_info{name="graft",version="1"}') == 0
        assert served.metric('graft_model_info{name="graft",version="2"}') == 1

    assert set(load.answers) == {(200, "1"), (200, "2")}
    assert "graft version 2 answers now" in (two_versions.root / "serve.log").read_text()


def test_a_version_that_cannot_be_verified_is_not_served(two_versions: Project, picture: bytes) -> None:
    client = two_versions.mlflow()
    client.set_registered_model_alias("graft", "champion", "1")
    source = client.get_model_version_download_uri("graft", "2")
    with serving(two_versions.root, "--poll", "0.2") as served:
        _spoil(two_versions, source)
        client.set_registered_model_alias("graft", "champion", "2")
        wait_for(lambda: served.metric('graft_model_swaps_total{outcome="failed"}'), seconds=60)

        assert served.ask("POST", "/predict", picture).document["model"]["version"] == "1"
    assert "not those that were registered" in (two_versions.root / "serve.log").read_text()


def test_a_version_that_failed_is_tried_again_later_and_another_one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str | None] = []
    moved = iter(["graft/2"] * 4 + ["graft/3"])

    def serve(wanted: str | None) -> None:
        tried.append(wanted)
        raise GraftError("it fails")

    metrics = Metrics()
    follower = Follower(Settings(), Desk(8, metrics), metrics, ThreadPoolExecutor(1), lambda: None)
    monkeypatch.setattr(follower, "_moved", lambda: next(moved))
    monkeypatch.setattr(follower, "_serve", serve)
    for _ in range(5):
        follower.look()

    assert tried == ["graft/2", "graft/2", "graft/3"]
    assert b'graft_model_swaps_total{outcome="failed"} 3.0' in metrics.page()


def _spoil(project: Project, source: str) -> None:
    (head,) = Path(project.root / source.removeprefix("file://")).rglob("head.safetensors")
    head.write_bytes(head.read_bytes()[:-1] + b"\xff")


def test_a_model_that_is_not_there_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AssertionError), serving(tmp_path, "--model", "nothing"):
        pass

    assert "there is no such model" in (tmp_path / "serve.log").read_text()
