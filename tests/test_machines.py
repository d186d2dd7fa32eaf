"""The parts of the drill of a cluster (cluster_drill.py): machines that see nothing of each other, and a server that
fails some reads."""

from __future__ import annotations

import http.client
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest
from failing_server import FailingServer
from machines import Lab, able, call, measured

needs_machines = pytest.mark.skipif(bool(able()), reason=able() or "it can")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("grtest", tmp_path_factory.mktemp("lab"), "10.78.0") as made:
        for number, name in enumerate(("one", "two"), 11):
            machine = made.machine(name, number, disk="2m")
            (machine.home / "own").write_text(name, encoding="ascii")
            machine.boot("sleep infinity & sleep infinity")
        yield made


@needs_machines
def test_a_machine_sees_its_own_home_and_nothing_of_the_lab_the_code_or_other_machines(lab: Lab) -> None:
    one, two = lab.machines

    assert [machine.run("cat", "own").stdout for machine in (one, two)] == ["one", "two"]
    assert one.run("ls", str(lab.folder)).stdout.split() == ["home", "tmp"]
    assert one.run(sys.executable, "-c", "import graft.flows", check=False).returncode
    assert one.run("pgrep", "--count", "sleep").stdout == "2\n"
    one.run("touch", "/dev/shm/mine")
    assert two.run("test", "-e", "/dev/shm/mine", check=False).returncode


@needs_machines
def test_machines_reach_each_other(lab: Lab) -> None:
    one, two = lab.machines
    wait = f"import socket; server = socket.create_server(('{two.address}', 80)); print(server.accept()[1][0])"
    asks = f"""
import socket, time
while True:
    try:
        socket.create_connection(('{two.address}', 80), timeout=1).close()
        break
    except OSError:
        time.sleep(0.05)
"""
    with subprocess.Popen(two.inside(sys.executable, "-c", wait), stdout=subprocess.PIPE, text=True) as server:
        one.run(sys.executable, "-c", asks)
        assert server.communicate(timeout=60)[0] == f"{one.address}\n"


@needs_machines
def test_a_full_disk_is_full_until_it_is_freed(lab: Lab) -> None:
    one = lab.machines[0]
    one.fill_disk()

    assert "No space left" in one.run("dd", "if=/dev/zero", "of=tried", "count=100", check=False).stderr
    one.free_disk()
    one.run("dd", "if=/dev/zero", "of=tried", "count=100")


@needs_machines
def test_a_killed_machine_loses_all_processes_and_its_disk(lab: Lab) -> None:
    two = lab.machines[1]
    before = two.processes()
    two.run("touch", "kept")
    two.kill()

    assert len(before) == 2
    assert psutil.wait_procs(before, timeout=20)[1] == []
    two.reboot()
    assert two.run("test", "-e", "kept", check=False).returncode


@needs_machines
def test_a_lab_leaves_nothing_behind_and_removes_what_a_killed_one_has_left(tmp_path: Path) -> None:
    leave = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from machines import Lab
lab = Lab("grkill", Path({str(tmp_path)!r}) / "lab", "10.76.0").__enter__()
lab.machine("one", 11).boot("setsid sleep infinity")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", leave], check=False)
    with Lab("grkill", tmp_path / "lab", "10.76.0") as lab:
        assert lab.marked() == []
        lab.machine("one", 11).boot()
        assert len(lab.marked()) > 1

    assert lab.marked() == []
    assert "grkill" not in call("ip", "netns", "list") + call("ip", "link", "show")


def test_the_cost_of_processes_is_their_processor_time() -> None:
    works = "import time; next(now for now in iter(time.process_time, None) if now > 0.5); print(); input()"
    with subprocess.Popen([sys.executable, "-c", works], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        with measured([psutil.Process(worker.pid)]) as cost:
            worker.stdout.readline()
        worker.communicate(b"\n")

    assert 0.2 < cost.seconds < 1


def test_the_failing_server_fails_its_share_of_the_reads_and_gives_the_others_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8
    (tmp_path / "file").write_bytes(content)
    server = FailingServer(tmp_path, ("127.0.0.1", 0), 0.3)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        ends = [read(server, "/file") for _ in range(200)]
        part = read(server, "/file", Range="bytes=256-511")
        none = read(server, "/../" + Path(__file__).name)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert {end if isinstance(end, str) else "whole" for end in ends} == {"503", "cut", "whole"}
    assert all(end == content for end in ends if isinstance(end, bytes))
    assert sum(isinstance(end, str) for end in ends) in (server.failed, server.failed - 1)
    assert 30 < server.failed < 90
    assert part in (content[256:512], "503", "cut")
    assert none == "404"


def read(server: FailingServer, path: str, **headers: str) -> bytes | str:
    """The body, or how the read failed."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    try:
        link.request("GET", path, headers=headers)
        answer = link.getresponse()
        return answer.read() if answer.status in (200, 206) else str(answer.status)
    except http.client.IncompleteRead:
        return "cut"
    finally:
        link.close()
