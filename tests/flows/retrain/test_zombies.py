"""A flow run whose process was killed outright ends as Crashed; one that lives goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.events.schemas.automations import AutomationCore
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Crashed, Pending
from projects import Project, ask, copy_prefect_database, free_port, wait_for

from graft.flows.retrain.zombies import (
    BEAT,
    CRASHED,
    HEARTBEAT,
    PROCESS,
    UNCLAIMED,
    ensure_watch,
    heartbeat_settings,
    last_crash,
    mark_crashed_runs,
    mark_crashed_runs_of,
)
from graft.flows.runtime import processes
from graft.flows.runtime.login import server_login
from graft.flows.runtime.servers import prefect_server

ROOT = Path(__file__).resolve().parents[3]

SERVED = """
import sys, time
from pathlib import Path
from prefect import flow, runtime
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from graft.flows.retrain.zombies import sign

@flow(name="retrain")
def retrain(released: str) -> None:
    sign(runtime.flow_run.id)
    while not Path(released).exists():
        time.sleep(0.1)

if __name__ == "__main__":
    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    retrain.serve(name=sys.argv[1], global_limit=one, print_starting_message=False)
"""


@pytest.fixture
def server(prefect_api: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Prefect's server, for this process too."""
    for name, value in prefect_api.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: prefect_api["PREFECT_API_URL"]}):
        yield prefect_api


@dataclass(frozen=True)
class Served:
    """A process that serves a flow, which runs.

    Attributes:
        run_id: of the flow run.
        released: the file at whose appearance the flow ends.
    """

    process: psutil.Process
    deployment_id: UUID
    run_id: UUID
    released: Path

    def kill(self) -> None:
        """As a power cut does: the serving process and the flow run's, which is in a session of its own."""
        for process in [self.process, *self.process.children(recursive=True)]:
            process.kill()
        self.process.wait(10)


@contextmanager
def serving(folder: Path, name: str, server: dict[str, str]) -> Iterator[Served]:
    """Serves a flow `retrain` that waits for a file, and starts a run of it."""
    folder.mkdir()
    (folder / "beating.py").write_text(SERVED, encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "beating.py", name],
        cwd=folder,
        env={**os.environ, **server, **heartbeat_settings(), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    own = psutil.Process(process.pid)
    try:
        deployment = wait_for(lambda: deployment_of(server, name))
        parameters = {"released": str(folder / "released")}
        run = ask(server, lambda client: client.create_flow_run_from_deployment(deployment.id, parameters=parameters))
        served = Served(own, deployment.id, run.id, folder / "released")
        wait_for(lambda: PROCESS in read(server, run.id).labels)
        yield served
    finally:
        (folder / "released").touch()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def deployment_of(server: dict[str, str], name: str) -> Any:
    deployments = ask(server, lambda client: client.read_deployments())
    return next((deployment for deployment in deployments if deployment.name == name), None)


def read(server: dict[str, str], run_id: UUID) -> Any:
    return ask(server, lambda client: client.read_flow_run(run_id))


def ended(server: dict[str, str], run_id: UUID) -> Any:
    run = read(server, run_id)
    return run if run.state.is_final() else None


def watches(server: dict[str, str], name: str) -> list[Any]:
    """Of the two automations, that for silent runs."""
    return list(ask(server, lambda client: client.read_automations_by_name(f"{name}: {CRASHED}")))


def test_a_silent_run_ends_as_crashed_and_one_that_lives_goes_on(
    tmp_path: Path, server: dict[str, str], request: pytest.FixtureRequest
) -> None:
    notices, address = listener(request)
    block = CustomWebhookNotificationBlock(name="listener", url=address, json_data={"text": "{{subject}}: {{body}}"})
    block.save("listener", overwrite=True)
    ensure_watch(
        "silent runs", BEAT + 10, recipients=["custom-webhook/listener", "custom-webhook/none", address, "env:NONE"]
    )
    (watch,) = watches(server, "silent runs")
    request.addfinalizer(lambda: ask(server, lambda client: client.delete_automation(watch.id)))
    with serving(tmp_path / "dying", "dying", server) as dying, serving(tmp_path / "living", "living", server) as lives:
        key = read(server, lives.run_id).labels[PROCESS]
        assert processes.key_runs(key)
        dying.kill()

        crashed = wait_for(lambda: ended(server, dying.run_id), seconds=3 * BEAT)

        assert crashed.state_name == "Crashed"
        assert "no heartbeat for 40 seconds" in crashed.state.message
        (notice,) = wait_for(lambda: notices)
        assert f"{crashed.name} crashed: no heartbeat for 40 seconds" in notice
        assert str(crashed.id) in notice
        assert last_crash(dying.deployment_id) == f"{crashed.name}: {crashed.state.message}"
        assert read(server, lives.run_id).state_name == "Running", "its second heartbeat has come"
        lives.released.touch()
        assert wait_for(lambda: ended(server, lives.run_id)).state_name == "Completed"
        assert last_crash(lives.deployment_id) == ""


def listener(request: pytest.FixtureRequest) -> tuple[list[str], str]:
    """What is posted to an address, and the address."""
    posted: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    hook = HTTPServer(("127.0.0.1", 0), Listener)
    Thread(target=hook.serve_forever, daemon=True).start()
    request.addfinalizer(hook.shutdown)
    return posted, f"http://127.0.0.1:{hook.server_port}"


def test_after_a_power_cut_the_run_is_marked_as_crashed_and_others_start(
    prefect_api: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, port = Project(tmp_path / "own"), free_port()
    own.root.mkdir()
    copy_prefect_database(prefect_api, own)
    here = {"PREFECT_HOME": str(own.root / ".prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    here["PREFECT_API_AUTH_STRING"] = server_login(own.root)
    for name, value in here.items():
        monkeypatch.setenv(name, value)
    with temporary_settings({PREFECT_API_URL: here["PREFECT_API_URL"]}):
        with prefect_server(own.root, port):
            ensure_watch("after the cut", silent=10)
        with prefect_server(own.root, port), serving(tmp_path / "cut", "cut", here) as served:
            wait_for(lambda: heard(here, served))
            assert started(here, served) == "Cancelled", "one at a time"
            served.kill()
            _, pid, _ = own.json(".graft/servers/prefect.json")["process"].rsplit(":", 2)
            os.killpg(int(pid), signal.SIGKILL)

        with prefect_server(own.root, port):
            assert "no heartbeat" in wait_for(lambda: ended(here, served.run_id)).state.message
            assert started(here, served) == "Pending", "the slot of the crashed run is free"


def heard(server: dict[str, str], served: Served) -> bool:
    """Whether the server has got a heartbeat of the run."""
    about = EventFilter(event=EventNameFilter(name=[HEARTBEAT]))
    about.any_resource = [EventAnyResourceFilter(id=[f"prefect.flow-run.{served.run_id}"])]
    return bool(ask(server, lambda client: client.read_events(about, limit=1)).total)


def started(server: dict[str, str], served: Served) -> str:
    """The state of another run of the deployment as soon as somebody wants to start it."""

    async def start(client: Any) -> str:
        parameters = {"released": str(served.released)}
        run = await client.create_flow_run_from_deployment(served.deployment_id, parameters=parameters)
        await client.set_flow_run_state(run.id, Pending())
        return str((await client.read_flow_run(run.id)).state_name)

    return str(ask(server, start))


def test_a_run_that_was_marked_by_mistake_ends_in_its_true_state(tmp_path: Path, server: dict[str, str]) -> None:
    with serving(tmp_path / "mistaken", "mistaken", server) as served:
        ask(server, lambda client: client.set_flow_run_state(served.run_id, Crashed(), force=True))
        assert read(server, served.run_id).state_name == "Crashed"

        served.released.touch()

        wait_for(lambda: read(server, served.run_id).state_name == "Completed", seconds=30)


def test_the_watch_is_made_once_brought_up_to_date_and_stays_paused(server: dict[str, str]) -> None:
    name = f"watch {uuid4()}"
    ensure_watch(name)
    (made,) = watches(server, name)
    ensure_watch(name)
    assert watches(server, name) == [made], "a second call changes nothing"

    ask(server, lambda client: client.pause_automation(made.id))
    ensure_watch(name, silent=60)

    (later,) = watches(server, name)
    assert (later.id, later.enabled) == (made.id, False)
    assert later.trigger.within.total_seconds() == 60
    assert "60 seconds" in later.actions[0].message

    twin = AutomationCore(**later.model_dump(exclude={"id"}))
    assert ask(server, lambda client: client.create_automation(twin)) != later.id
    ensure_watch(name, silent=60)
    assert len(watches(server, name)) == 1, "two processes that made it at once leave one"


def test_runs_whose_process_is_gone_are_ended_and_others_are_left_alone(server: dict[str, str]) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = processes.key(psutil.Process(gone.pid))
    gone.kill()
    gone.wait()
    deployment, other = register("crashing"), register("another")
    keys = {
        "dead": dead,
        "alive": processes.key(processes.me()),
        "elsewhere": f"not-{socket.gethostname()}:{gone.pid}:1",
        "unsigned": "",
    }
    runs = {name: running(server, deployment, key) for name, key in keys.items()}
    foreign = running(server, other, dead)

    marked = mark_crashed_runs(deployment)

    assert marked == [read(server, runs["dead"]).name]
    ended_run = read(server, runs["dead"])
    assert ended_run.state_name == "Crashed"
    assert f"its process {gone.pid} has ended" in ended_run.state.message
    left = [read(server, run).state_name for run in (runs["alive"], runs["elsewhere"], runs["unsigned"], foreign)]
    assert left == ["Running"] * 4
    assert mark_crashed_runs(deployment) == []
    assert mark_crashed_runs_of("retrain/another") == [read(server, foreign).name]
    assert mark_crashed_runs_of("retrain/none") == []
    assert last_crash(deployment) == f"{ended_run.name}: {ended_run.state.message}"
    assert last_crash(register("untried")) == ""


def test_a_run_that_its_worker_never_started_does_not_stay_pending(
    server: dict[str, str], request: pytest.FixtureRequest
) -> None:
    """Its worker is killed between taking it and starting it; it holds the deployment's only place."""
    ensure_watch("lost workers", unstarted=10)
    (watch,) = ask(server, lambda client: client.read_automations_by_name(f"lost workers: {UNCLAIMED}"))
    request.addfinalizer(lambda: ask(server, lambda client: client.delete_automation(watch.id)))
    deployment = register("lost")

    async def take(client: Any) -> UUID:
        run = await client.create_flow_run_from_deployment(deployment)
        await client.set_flow_run_state(run.id, Pending())
        return run.id  # type: ignore[no-any-return]

    run_id = ask(server, take)

    lost = wait_for(lambda: ended(server, run_id))

    assert lost.state_name == "Crashed"
    assert "not started within 10 seconds" in lost.state.message


def register(name: str) -> UUID:
    """A deployment of a flow; nothing serves it."""
    from prefect import flow

    @flow(name="retrain")
    def retrain() -> None:
        """Never called."""

    return retrain.to_deployment(name).apply()  # type: ignore[union-attr,return-value]


def running(server: dict[str, str], deployment_id: UUID, key: str) -> UUID:
    """A run that is Running according to Prefect, signed with the key of a process."""
    from prefect.states import Running

    async def make(client: Any) -> UUID:
        run = await client.create_flow_run_from_deployment(deployment_id)
        await client.set_flow_run_state(run.id, Running(), force=True)
        if key:
            await client.update_flow_run_labels(run.id, {PROCESS: key})
        return UUID(str(run.id))

    return UUID(str(ask(server, make)))
