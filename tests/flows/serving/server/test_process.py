"""How the server starts and ends."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from projects import wait_for
from server_process import Served, serving

from graft.flows.serving.server.process import bind
from graft.flows.serving.server.settings import Settings
from graft.flows.serving.server.start import check, policy, read_key
from graft.tasks.common.core.errors import GraftError, ParamsError


def test_accepted_requests_are_answered_before_the_end(package: Path, tmp_path: Path, picture: bytes) -> None:
    with serving(tmp_path, "--model", str(package)) as served, ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(served.ask, "POST", "/predict", picture) for _ in range(64)]
        wait_for(lambda: sum(one.done() for one in waiting) >= 8, seconds=30)
        accepted = [one for one in waiting if one.running() or one.done()]
        code = served.stop()
        told = [one.result() for one in accepted if not _refused_to_connect(one.exception())]

    assert code == 0
    assert {answer.status for answer in told} == {200}
    assert len(told) >= 8


def _refused_to_connect(error: BaseException | None) -> bool:
    """It came after the end, and was never accepted."""
    return isinstance(error, ConnectionRefusedError)


def test_a_request_that_is_being_sent_is_answered_too(package: Path, tmp_path: Path, picture: bytes) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
    with (
        serving(tmp_path, "--model", str(package)) as served,
        socket.create_connection(("127.0.0.1", served.port), 30) as client,
    ):
        client.sendall(head + picture[:10])
        served.ask("GET", "/ready")  # by now the first request is accepted
        served.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping" in (tmp_path / "serve.log").read_text(), seconds=30)
        client.sendall(picture[10:])

        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert served.process.wait(30) == 0


def test_the_log_has_a_line_for_the_start_and_for_the_end_and_none_for_requests(
    package: Path, tmp_path: Path, picture: bytes
) -> None:
    with serving(tmp_path, "--model", str(package)) as served:
        served.ask("POST", "/predict", picture)
        served.ask("POST", "/predict", b"text")
        served.stop()
    lines = (tmp_path / "serve.log").read_text().splitlines()

    assert [line.split("INFO ")[1][:8] for line in lines] == [str(package)[:8], "stopping", "stopped"]


def test_workers_share_a_port_and_their_numbers_and_are_replaced(package: Path, tmp_path: Path, picture: bytes) -> None:
    with serving(tmp_path, "--model", str(package), "--workers", "2") as served:
        parent = psutil.Process(served.process.pid)
        wait_for(lambda: served.metric('graft_model_info{name="graft",version=""}') == 2, seconds=60)
        for _ in range(20):
            assert served.ask("POST", "/predict", picture).status == 200
        assert served.metric('graft_request_seconds_count{route="/predict",status="2xx"}') == 20
        first = {child.pid for child in parent.children()}
        os.kill(min(first), signal.SIGKILL)
        wait_for(lambda: len(_running(parent) - first) == 1, seconds=60)
        wait_for(lambda: served.metric('graft_model_info{name="graft",version=""}') == 2, seconds=60)

        assert served.ask("POST", "/predict", picture).status == 200
        children = parent.children()
        assert served.stop() == 0
        assert not any(child.is_running() for child in children)


def _running(parent: psutil.Process) -> set[int]:
    return {child.pid for child in parent.children() if child.status() != psutil.STATUS_ZOMBIE}


def test_workers_end_with_their_parent(package: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "--model", str(package), "--workers", "2") as served:
        children = psutil.Process(served.process.pid).children()
        served.process.kill()
        served.process.wait()
        wait_for(lambda: not any(child.is_running() for child in children), seconds=60)


def test_a_port_in_use_is_an_error(served: Served) -> None:
    with pytest.raises(GraftError, match="cannot listen"):
        bind("127.0.0.1", served.port)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "model.example"])
def test_a_server_for_others_needs_a_key(host: str) -> None:
    with pytest.raises(ParamsError, match="needs a key"):
        check(Settings(host=host), no_key=False)
    check(Settings(host=host, key="x" * 16), no_key=False)
    check(Settings(host=host), no_key=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_a_server_for_this_machine_needs_none(host: str) -> None:
    check(Settings(host=host), no_key=False)


@pytest.mark.parametrize("text", ["", "short", "with spaces in the middle", "ümlaute-sind-nicht-ascii"])
def test_a_key_that_is_no_secret_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ParamsError, match="key"):
        read_key(file)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-of-some-length")
    file.chmod(0o644)
    with pytest.raises(ParamsError, match="can read"):
        read_key(file)


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-of-some-length\n")
    file.chmod(0o600)
    assert read_key(file) == "a-key-of-some-length"
    monkeypatch.setenv("GRAFT_SERVE_KEY", "another-key-of-some-length")
    assert read_key(None) == "another-key-of-some-length"
    monkeypatch.delenv("GRAFT_SERVE_KEY")
    assert read_key(None) == ""


def test_policies_for_pictures() -> None:
    assert policy([]) == (False, 0.0)
    assert policy(["unsure", "random:0.25"]) == (True, 0.25)
    for word in ("all", "random", "random:2", "random:x", "random:nan"):
        with pytest.raises(ParamsError, match="--keep"):
            policy([word])


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ParamsError, match="--queue"):
        check(Settings(queue=3, max_images=4), no_key=False)
    with pytest.raises(ParamsError, match="--keep needs"):
        check(Settings(keep_unsure=True), no_key=False)
