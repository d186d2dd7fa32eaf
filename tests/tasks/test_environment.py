"""Processes of one machine use no proxy among themselves, know their user, heed a quota, and draw to files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from projects import Project

from graft.tasks.common.core import cores
from graft.tasks.environment import draw_to_files_only, heed_the_quota, no_proxy_for_this_machine

NAMELESS = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
"""Runs a command as a user id without a name, as containers of OpenShift do."""


def can_be_nameless() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run([*NAMELESS, "true"], capture_output=True).returncode == 0
    )


needs_a_nameless_user = pytest.mark.skipif(not can_be_nameless(), reason="this machine forbids user namespaces")


@pytest.mark.parametrize(
    ("yours", "becomes"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "intranet.example.org, localhost"}, "intranet.example.org,localhost,127.0.0.1"),
        ({"no_proxy": ".example.org"}, ".example.org,127.0.0.1,localhost"),
    ],
)
def test_this_machine_is_added_to_the_exceptions_that_you_have_set(yours: dict[str, str], becomes: str) -> None:
    with mock.patch.dict(os.environ, yours, clear=True):
        no_proxy_for_this_machine()
        assert os.environ == {"no_proxy": becomes, "NO_PROXY": becomes}
        no_proxy_for_this_machine()
        assert os.environ["no_proxy"] == becomes


def test_no_proxy_at_all_stays_as_it_is() -> None:
    with mock.patch.dict(os.environ, {"no_proxy": "*"}, clear=True):
        no_proxy_for_this_machine()
        assert os.environ == {"no_proxy": "*"}


def test_a_plotting_backend_that_only_a_notebook_has_is_overridden() -> None:
    with mock.patch.dict(os.environ, {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}):
        draw_to_files_only()
        assert os.environ["MPLBACKEND"] == "agg"


def test_a_quota_of_processors_bounds_the_threads_of_libraries_and_your_own_bound_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    with mock.patch.dict(os.environ, {"MKL_NUM_THREADS": "3"}, clear=True):
        heed_the_quota()
        assert os.environ == {"MKL_NUM_THREADS": "3"}, "without a quota they see for themselves"
        monkeypatch.setattr(cores, "quota", lambda root, group: 1.5)
        heed_the_quota()
        assert os.environ == {"MKL_NUM_THREADS": "3", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}


def test_every_library_follows_the_one_processor_that_a_process_may_use() -> None:
    program = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy, torch
from openvino import Core, Model, Type, opset13
from threadpoolctl import threadpool_info
from graft.tasks.common.core.cores import cores
source = opset13.parameter([1], Type.f32)
compiled = Core().compile_model(Model([opset13.relu(source)], [source]), "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
threads = {cores(), torch.get_num_threads(), compiled.get_property("INFERENCE_NUM_THREADS")}
print(threads | {pool["num_threads"] for pool in threadpool_info()})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "{1}", done.stderr


def nameless(folder: Path, program: str, **more: str) -> str:
    """What a program prints that a user without a name runs, after it has prepared its process."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    program = f"import os; from graft.tasks.environment import prepare_process; prepare_process(); {program}"
    done = subprocess.run(
        [*NAMELESS, sys.executable, "-c", program],
        env={**kept, "TMPDIR": str(folder), **more},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@needs_a_nameless_user
@pytest.mark.parametrize("home", [{}, {"HOME": "/proc"}])
def test_a_user_id_without_a_name_gets_one_and_a_home_of_its_own(tmp_path: Path, home: dict[str, str]) -> None:
    asked = "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())"
    assert nameless(tmp_path, asked, **home) == f"user54321 {tmp_path}/graft-home-54321"
    assert (tmp_path / "graft-home-54321").stat().st_mode & 0o777 == 0o700


@needs_a_nameless_user
def test_a_name_and_a_home_that_were_given_stay(tmp_path: Path) -> None:
    given = {"HOME": str(tmp_path), "USER": "robot", "LOGNAME": "robot"}
    asked = "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())"
    assert nameless(tmp_path, asked, **given) == f"robot {tmp_path}"


@needs_a_nameless_user
def test_a_home_that_somebody_else_has_prepared_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "graft-home-54321").symlink_to(tmp_path)
    assert nameless(tmp_path, "print(os.environ['HOME'])").startswith(f"{tmp_path}/graft-home-54321-")


@needs_a_nameless_user
def test_commands_work_for_a_user_id_without_a_name(project: Project, tmp_path: Path) -> None:
    done = subprocess.run(
        [*NAMELESS, "env", "--unset=HOME", "--unset=USER", sys.executable, "-m", "graft.flows.cli.main", "status"],
        cwd=project.root,
        env=project.environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
