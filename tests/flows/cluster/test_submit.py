"""Jobs and the code that they run."""

from __future__ import annotations

import io
import zipfile

import pytest
from projects import free_port

from graft.flows.cluster.submit import _submit, connect, package_code
from graft.tasks.common.core.errors import TransientError


def test_the_code_of_a_job_is_this_package_and_always_the_same_bytes() -> None:
    code = package_code()
    names = zipfile.ZipFile(io.BytesIO(code)).namelist()

    assert package_code() == code
    assert len(code) < 3e6
    assert {"graft/__init__.py", "graft/flows/cluster/driver.py", "graft/tasks/features/runners/blocks.py"} <= {*names}
    assert not [name for name in names if "__pycache__" in name or name.startswith("graft/sample/")]


def test_a_job_server_that_does_not_answer_is_named_and_ray_reports_no_use() -> None:
    address = f"http://127.0.0.1:{free_port()}"

    with pytest.raises(TransientError, match=rf"job server does not answer[\s\S]*{address}"):
        connect(address)
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()


class Starting:
    """A job server whose cluster is starting."""

    def __init__(self) -> None:
        self.asked = 0

    def submit_job(self, **_job: object) -> None:
        self.asked += 1
        if self.asked < 3:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job")


def test_a_job_waits_for_a_cluster_that_is_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.flows.cluster.submit.time.sleep", lambda seconds: None)
    server = Starting()

    _submit(server, entrypoint="true")

    assert server.asked == 3
