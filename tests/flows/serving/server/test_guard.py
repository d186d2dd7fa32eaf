"""The key, and the host names of a server that others can reach."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import Served, serving

from graft.flows.serving.server.guard import allowed_hosts

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def guarded(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "key").write_text(f"{KEY}\n")
    (folder / "key").chmod(0o600)
    words = ("--host", "0.0.0.0", "--key-file", "key", "--allowed-host", "model.example")
    with serving(folder, "--model", str(package), *words) as server:
        yield server


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer ä"]
)
def test_without_the_key_nothing_is_answered(guarded: Served, picture: bytes, header: str) -> None:
    headers = {"Authorization": header} if header else {}
    answer = guarded.ask("POST", "/predict", picture, **headers)

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert KEY not in answer.body.decode()
    for path in ("/metrics", "/version", "/v2/models/graft", "/nothing"):
        assert guarded.ask("GET", path, **headers).status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_with_the_key_it_is(guarded: Served, picture: bytes, scheme: str) -> None:
    assert guarded.ask("POST", "/predict", picture, Authorization=f"{scheme} {KEY}").status == 200


def test_two_keys_are_refused(guarded: Served) -> None:
    lines = f"GET /version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), 30) as connection:
        connection.sendall(f"{lines}Authorization: Bearer wrong\r\n\r\n".encode())

        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_the_page_and_the_probes_need_no_key(guarded: Served) -> None:
    for path in ("/", "/docs", "/ready", "/ping", "/v2/health/live"):
        assert guarded.ask("GET", path).status == 200
    assert guarded.ask("GET", "/ready", Host="10.0.0.7").status == 200


@pytest.mark.parametrize(("host", "status"), [("model.example:443", 200), ("evil.example", 421)])
def test_only_allowed_host_names_are_answered(guarded: Served, host: str, status: int) -> None:
    assert guarded.ask("GET", "/version", Host=host, Authorization=f"Bearer {KEY}").status == status


@pytest.mark.parametrize(
    ("host", "given", "expected"),
    [
        ("0.0.0.0", [], ()),
        ("0.0.0.0", ["A.example"], ("127.0.0.1", "localhost", "[::1]", "::1", "0.0.0.0", "a.example")),
        ("127.0.0.1", [], ("127.0.0.1", "localhost", "[::1]", "::1")),
    ],
)
def test_a_server_on_the_loopback_always_checks_the_host(host: str, given: list[str], expected: tuple[str]) -> None:
    assert allowed_hosts(host, given) == expected
