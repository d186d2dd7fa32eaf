"""Local servers: a project uses its own, and leaves another's alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import psutil
import pytest
import requests
from projects import Project, copy_prefect_database, free_port, wait_for

from graft.flows.runtime import processes
from graft.flows.runtime.login import server_login
from graft.flows.runtime.servers import own_address, prefect_server, server, use_own_prefect


class Healthy(BaseHTTPRequestHandler):
    """Says yes to everything, as another project's server does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_prefects_pages_ask_the_server_that_they_came_from(prefect_api: dict[str, str]) -> None:
    """On whatever port it is: by default they ask port 4200."""
    address = prefect_api["PREFECT_API_URL"].removesuffix("/api")
    for path in ("/ui-settings", "/v1/ui-settings"):
        answer = requests.get(address + path, timeout=10)
        if answer.ok:
            assert answer.json()["api_url"] == prefect_api["PREFECT_API_URL"]
            return
    raise AssertionError("no page says where the server is")


def test_anothers_server_on_the_port_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a project's own folder is in no server's path
    other = HTTPServer(("127.0.0.1", 0), Healthy)
    Thread(target=other.serve_forever, daemon=True).start()
    program = "import sys; from http.server import HTTPServer; from healthy import Healthy; "
    program += "HTTPServer(('127.0.0.1', int(sys.argv[-1])), Healthy).serve_forever()"
    (tmp_path / "own.py").write_text(program, encoding="utf-8")
    source = Path(__file__).read_text(encoding="utf-8")
    healthy = "from http.server import BaseHTTPRequestHandler\n" + source[source.index("class Healthy") :]
    (tmp_path / "healthy.py").write_text(healthy.partition("\n\n\n")[0], encoding="utf-8")
    try:
        with server("MLflow", ["own"], other.server_port, tmp_path) as address:
            assert address != f"http://127.0.0.1:{other.server_port}"
            assert own_address("MLflow", tmp_path) == address
            with server("MLflow", ["own"], free_port(), tmp_path) as again:
                assert again == address
        assert own_address("MLflow", tmp_path) == ""
    finally:
        other.shutdown()


def test_a_run_uses_the_projects_own_server_and_a_copied_note_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = HTTPServer(("127.0.0.1", 0), Healthy)
    Thread(target=other.serve_forever, daemon=True).start()
    note = tmp_path / ".graft" / "servers" / "prefect.json"
    note.parent.mkdir(parents=True)
    address = f"http://127.0.0.1:{other.server_port}"
    content = {"address": address, "process": processes.key(psutil.Process()), "root": str(tmp_path)}
    note.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setenv("PREFECT_API_URL", "")
    monkeypatch.delenv("PREFECT_API_URL")
    use_own_prefect(tmp_path)
    assert os.environ["PREFECT_API_URL"] == f"{address}/api"

    note.write_text(json.dumps({**content, "root": "/another"}), encoding="utf-8")

    assert own_address("Prefect", tmp_path) == ""
    other.shutdown()


def login(prefect_api: dict[str, str]) -> tuple[str, str]:
    user, _, password = prefect_api["PREFECT_API_AUTH_STRING"].partition(":")
    return user, password


def test_prefects_api_answers_only_who_has_the_login(prefect_api: dict[str, str]) -> None:
    api = prefect_api["PREFECT_API_URL"]
    start = f"{api}/deployments/{uuid4()}/create_flow_run"
    asked = {"parameters": {"project": "/another"}}
    for auth in (None, ("graft", "guessed")):
        assert requests.get(f"{api}/admin/version", auth=auth, timeout=10).status_code == 401
        token = requests.get(f"{api}/csrf-token", params={"client": "page"}, auth=auth, timeout=10)
        assert token.status_code == 401
    with_csrf = csrf(api, login(prefect_api))
    assert requests.post(start, json=asked, headers=with_csrf, timeout=10).status_code == 401
    assert requests.post(start, json=asked, timeout=10).status_code == 403, "a form of another page has no token"
    assert requests.post(start, json=asked, auth=login(prefect_api), timeout=10).status_code == 403
    known = requests.post(start, json=asked, auth=login(prefect_api), headers=with_csrf, timeout=10)
    assert known.status_code == 404, "let in: there is no such deployment"


def csrf(api: str, auth: tuple[str, str]) -> dict[str, str]:
    """The headers that Prefect's own client sends with every change."""
    token = requests.get(f"{api}/csrf-token", params={"client": "test"}, auth=auth, timeout=10).json()["token"]
    return {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}


def test_other_web_pages_can_read_nothing_of_prefects_api(prefect_api: dict[str, str]) -> None:
    api = prefect_api["PREFECT_API_URL"]
    address = api.removesuffix("/api")
    for own in (address, address.replace("127.0.0.1", "localhost")):
        assert allowed_origin(f"{api}/admin/version", own, login(prefect_api)) == own
    for other in ("http://evil.example.org", "null", "http://127.0.0.1:1"):
        assert allowed_origin(f"{api}/admin/version", other, login(prefect_api)) is None
        assert allowed_origin(f"{api}/health", other, None) is None
        headers = {"Origin": other, "Access-Control-Request-Method": "POST"}
        preflight = requests.options(f"{api}/flows/filter", headers=headers, timeout=10)
        assert preflight.status_code == 400
        assert "Access-Control-Allow-Origin" not in preflight.headers
    rebound = requests.get(f"{api}/admin/version", headers={"Host": "evil.example.org"}, timeout=10)
    assert rebound.status_code == 401, "a page whose name has come to mean this machine does not have the login"


def allowed_origin(url: str, origin: str, auth: tuple[str, str] | None) -> str | None:
    answer = requests.get(url, headers={"Origin": origin}, auth=auth, timeout=10)
    assert answer.status_code == 200
    return answer.headers.get("Access-Control-Allow-Origin")


def test_a_proxy_is_not_asked_for_this_machines_servers(
    tmp_path: Path, prefect_api: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "intranet.example.org")
    own = Project(tmp_path / "own")
    own.root.mkdir()
    copy_prefect_database(prefect_api, own)
    monkeypatch.setenv("PREFECT_HOME", str(own.root / ".prefect"))
    with prefect_server(own.root, free_port()) as address:
        assert own_address("Prefect", own.root) == address
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "intranet.example.org,127.0.0.1,localhost"
        auth = tuple(server_login(own.root).split(":"))
        answer = requests.get(f"{address}/api/admin/version", auth=auth, timeout=10)  # type: ignore[arg-type]
        assert answer.status_code == 200, "nor do libraries ask it"


@pytest.mark.parametrize("command", ["run", "ui"])
def test_no_server_outlives_a_killed_command(project: Project, prefect_api: dict[str, str], command: str) -> None:
    copy_prefect_database(prefect_api, project)
    words = [] if command == "run" else ["--mlflow-port", str(free_port()), "--prefect-port", str(free_port())]
    process = subprocess.Popen(
        [sys.executable, "-m", "graft.flows.cli.main", command, *words],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: listening(process.pid, servers=1 if command == "run" else 2))
        server_ids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(map(psutil.pid_exists, server_ids)), seconds=30)


def listening(pid: int, servers: int) -> bool:
    """Whether so many of the process' children, with theirs, have a port."""
    families = map(family, psutil.Process(pid).children())
    return sum(any(map(has_port, each)) for each in families) >= servers


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process with its children and theirs; none if it has ended meanwhile."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def has_port(process: psutil.Process) -> bool:
    try:
        return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("inet"))
    except psutil.Error:
        return False


def test_a_run_of_the_projects_own_uses_a_server_that_knows_its_login(
    project: Project, prefect_api: dict[str, str]
) -> None:
    copy_prefect_database(prefect_api, project)
    done = project.graft("run", "--json")
    assert json.loads(done.stdout)["stages"]
    assert "401" not in done.stderr
    parent = project.mlflow().get_run(json.loads(done.stdout)["parent_run_id"])
    assert parent.data.tags["prefect.flow_run_url"].startswith("http://127.0.0.1:4200/runs/flow-run/")
    left = [one.info for one in psutil.process_iter(["cwd", "cmdline"]) if one.info["cwd"] == str(project.root)]
    assert not [one for one in left if "uvicorn" in one["cmdline"]]
