"""Real parts for all tests: projects under git and DVC, one Prefect server, MLflow stores in files.

What takes long is made once for all tests, and once for all of pytest's processes if there are several.
"""

from __future__ import annotations

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import one_thread  # noqa: F401  (before what loads numpy)
import pytest
from cluster import Cluster, two_nodes
from projects import ROOT, Project, Rerun, free_port, made_once, make_project, rerun_head, run_all, run_inspector

from graft.tasks.common.images.reading import Reading

gc.disable()  # until all tests are collected: nothing that is loaded goes away, and looking for it takes a fifth longer
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background, and then by all that tests start


LONG = (
    "flows/retrain/test_flow.py",  # and with it all files there that use Prefect's server
    "flows/registry/test_registering.py",  # and with it the other files that use it
    "flows/stage/test_repro.py",
    "flows/lineage/test_rebuild.py",
    "flows/ingest/test_inbox.py",
    "flows/versioning/test_dvc.py",
    "flows/lineage/test_trace.py",
    "flows/registry/test_promotion.py",
    "flows/status/test_pending.py",
    "flows/gate/test_comparison.py",
    "flows/backbones/test_classify.py",
    "flows/cli/test_history.py",
    "flows/studies/test_rank.py",
    "flows/studies/test_drift.py",
    "tasks/common/backbones/test_keras.py",
    "tasks/preprocess/test_splits.py",
)
"""The files that take longest, longest first: the process that began one of them last would work on it alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, then those of most tests."""
    counts = Counter(item.path for item in items)
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: (ranks.get(item.path, len(LONG)), -counts[item.path]))


def pytest_collection_finish() -> None:
    """From now on garbage is collected, but not looked for among the modules and tests that stay."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files go to the processes one by one, but those that use Prefect's server go to two: each further server takes
    seconds to start, and processor time while it waits, and one process alone would be the last to end."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class TwoServers(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            if "/cluster/" in file:
                return "ray"
            if not uses_server(config.rootpath / file):
                return file
            return "prefect, retrain" if "/retrain/" in file else "prefect, others"

    config.option.loadscopereorder = False  # else those of most tests would come first
    return TwoServers(config, log)


@cache
def uses_server(file: Path) -> bool:
    """Whether a file of tests asks for `prefect_api`."""
    return "prefect_api" in file.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def store_of_its_own() -> Iterator[None]:
    """To tell MLflow in a test which store to load models from sets a variable for all that comes after."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if os.environ.get("MLFLOW_TRACKING_URI") != before:
        import mlflow

        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file has been decoded in this process."""
    counter, decode = Counter[Path](), Reading.file

    def file(reading: Reading, path: Path, image_id: str | None = None) -> Any:
        counter.update([path])
        return decode(reading, path, image_id)

    monkeypatch.setattr(Reading, "file", file)
    return counter


@pytest.fixture
def empty_project(tmp_path: Path) -> Project:
    """A project without images."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has run to its end, committed. Not to be changed, nor run anything in: copy it."""
    return Project(made_once(tmp_path_factory, "finished", run_all)[0])


@pytest.fixture(scope="session")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that detects anomalies, whose pipeline has run to its end, committed. Not to be changed, nor run
    anything in: copy it."""
    return Project(made_once(tmp_path_factory, "inspector", run_inspector)[0])


@pytest.fixture(scope="session")
def anomalies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `package` of the task anomaly, and pictures for it in `good` and `defect`. Not to be changed."""
    from anomaly_package import make_package

    return made_once(tmp_path_factory, "anomalies", make_package)[0]


@pytest.fixture(scope="session")
def rerun(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Rerun:
    """A finished project that has run a second time, with another head: for all that follows from that.

    Not to be changed, nor run anything in: copy it.
    """
    folder, told = made_once(tmp_path_factory, "rerun", lambda root: rerun_head(finished.copy(root)))
    return Rerun(folder, **told)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A finished project of the test's own."""
    return finished.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """A real Ray cluster of two nodes with one processor each; what asks for it runs in one of pytest's processes."""
    with two_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Prefect server; the variables by which a process finds it and may use it."""
    from graft.flows.runtime.login import server_login
    from graft.flows.runtime.servers import prefect_server

    root = tmp_path_factory.mktemp("prefect")
    settings = {"PREFECT_HOME": str(root), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        with prefect_server(root, free_port()) as address:
            login = {"PREFECT_API_AUTH_STRING": server_login(root)}
            yield {**settings, **login, "PREFECT_API_URL": f"{address}/api"}
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
