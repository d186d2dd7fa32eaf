"""Local servers: a project uses its own, and leaves another's alone."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
import requests
from projects import free_port

from flows import processes
from flows.servers import own_address, server, use_own_prefect


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


def test_anothers_server_on_the_port_is_not_used(tmp_path: Path) -> None:
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
