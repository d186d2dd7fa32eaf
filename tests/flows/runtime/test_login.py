"""The login of a project's Prefect server: secret, one for all of a project's processes, and never forced on yours."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from graft.flows.runtime.login import CLIENT, SERVER, login_file, login_hint, server_login, use_login
from graft.flows.runtime.servers import prepare_prefect
from graft.tasks.common.core.errors import GraftError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def nothing_set() -> Iterator[None]:
    """No variable of Prefect's; those that a test sets are taken back."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with mock.patch.dict(os.environ, kept, clear=True):
        yield


def test_all_processes_of_a_project_make_one_login_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from graft.flows.runtime.login import server_login; "
    program += "print(server_login(Path(sys.argv[1])))"

    def ask(_: int) -> str:
        words = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(4) as pool:
        (login,) = set(pool.map(ask, range(4)))

    user, _, password = login.partition(":")
    assert user == "graft"
    assert len(password) >= 32
    assert stat.S_IMODE(login_file(tmp_path).stat().st_mode) == 0o600
    assert login not in login_hint(tmp_path)
    assert str(login_file(tmp_path)) in login_hint(tmp_path)
    assert server_login(tmp_path / "another") != login


def test_a_login_that_others_can_read_is_closed_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    login = server_login(tmp_path)
    login_file(tmp_path).chmod(0o644)
    assert server_login(tmp_path) == login
    assert stat.S_IMODE(login_file(tmp_path).stat().st_mode) == 0o600

    login_file(tmp_path).write_text("", encoding="utf-8")
    with pytest.raises(GraftError, match="damaged"):
        server_login(tmp_path)


def test_your_own_login_is_used_by_server_and_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLIENT, "me:mine")
    use_login(tmp_path)
    assert (os.environ[SERVER], os.environ[CLIENT]) == ("me:mine", "me:mine")
    assert not login_file(tmp_path).exists()
    assert login_hint(tmp_path) == f"Log in to Prefect with the value of {SERVER}"


def test_your_own_server_gets_no_login_of_the_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example.org/api")
    prepare_prefect(tmp_path)
    assert SERVER not in os.environ
    assert CLIENT not in os.environ

    monkeypatch.delenv("PREFECT_API_URL")
    prepare_prefect(tmp_path)
    assert os.environ[SERVER] == os.environ[CLIENT] == server_login(tmp_path)


def test_a_server_of_the_projects_own_that_you_name_gets_the_projects_login(
    prefect_api: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `export PREFECT_API_URL=...` of the address that `graft ui` prints, in either spelling."""
    root = Path(prefect_api["PREFECT_HOME"])
    monkeypatch.setenv("PREFECT_API_URL", prefect_api["PREFECT_API_URL"].replace("127.0.0.1", "localhost"))
    prepare_prefect(root)
    assert os.environ[CLIENT] == prefect_api[CLIENT]
