"""Real parts for all tests: projects under git and DVC, one Prefect server, MLflow stores in files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, Rerun, draw_classes, free_port, make_project, rerun_head, wait_for


@pytest.fixture
def empty_project(tmp_path: Path) -> Project:
    """A project without images."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has run to its end, committed. Not to be changed: copy it."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    draw_classes(project.root / "data" / "raw")
    project.dvc("add", "data/raw")
    project.repro()
    wait_for(lambda: not list(project.recorders().iterdir()), seconds=20)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "first run")
    return project


@pytest.fixture(scope="session")
def rerun(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Rerun:
    """A finished project that has run a second time, with another head: all that follows from that can be asked of it.

    Not to be changed: copy it.
    """
    return rerun_head(finished.copy(tmp_path_factory.mktemp("rerun") / "project"))


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A finished project of the test's own."""
    return finished.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server; the variables by which a process finds it."""
    from flows.servers import prefect_server

    root = tmp_path_factory.mktemp("prefect")
    settings = {"PREFECT_HOME": str(root), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        with prefect_server(root, free_port()) as address:
            yield {**settings, "PREFECT_API_URL": f"{address}/api"}
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
