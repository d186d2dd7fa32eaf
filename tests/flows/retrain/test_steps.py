"""The steps between the stages and the decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlflow
import pytest
from projects import Project, Rerun

from graft.flows.registry import integrity
from graft.flows.registry.registering import ensure_registered
from graft.flows.retrain import steps
from graft.flows.retrain.working_copy import WorkingCopy
from graft.flows.tracking.tracker import Tracker
from graft.tasks.register.reference_set import Reference


def registered(project: Project) -> WorkingCopy:
    ensure_registered(Tracker(project.root))
    return WorkingCopy(project.root, project.root)


def counted(calls: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def count(*words: Any, **more: Any) -> Any:
        calls[name] += 1
        return function(*words, **more)

    return count


def test_the_champions_package_is_fetched_verified_and_read_once(
    rerun: Rerun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, calls = registered(rerun.copy(tmp_path / "project")), Counter[str]()
    download, digest = mlflow.artifacts.download_artifacts, integrity.digest
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", counted(calls, "fetched", download))
    monkeypatch.setattr(integrity, "digest", counted(calls, "verified", digest))
    monkeypatch.setattr(Reference, "load", counted(calls, "read", Reference.load))

    with ExitStack() as kept:
        champion = steps.fetch_champion.fn(copy, kept)
        verdict = steps.gate.fn(copy, champion, steps.check.fn(copy, champion))

    assert {"leaks", "drift", "gain", "latency"} <= {check.name for check in verdict.checks}
    assert calls == {"fetched": 1, "verified": 1, "read": 1}
    assert not champion.package.exists(), "the copy is removed at the end"


def test_a_run_whose_own_package_is_the_champion_fetches_nothing(project: Project) -> None:
    with ExitStack() as kept:
        assert steps.fetch_champion.fn(registered(project), kept) is None
