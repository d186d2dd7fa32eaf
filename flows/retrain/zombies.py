"""A dead process is noticed: its flow run does not stay `Running` for ever.

Two ways, since neither sees everything. The server listens for the heartbeats that Prefect sends from the process of
every flow run, and ends a run that has been silent for long: so a machine that has vanished is noticed too. And whoever
looks on the same machine sees at once that a process is gone.

It matters to more than the page: of a deployment one run may be under way, so that a dead one would keep out all
others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from ..runtime import processes
from ..runtime.servers import BEAT

SILENT = 300.0
"""Seconds of silence after which a run is taken for dead: a restart of the server must not look like it."""

UNSTARTED = 1800.0
"""Seconds that a run may be `Pending`: a worker that has taken it may have to fetch an image first."""

PROCESS = "graft.process"
"""The label of a flow run that says which process it is, by its key."""

PAGE = "\n\n{{ flow_run|ui_url or flow_run.id }}"
"""Its address, where the server knows its own (PREFECT_UI_URL)."""

HEARTBEAT, PENDING, RUNNING = (f"prefect.flow-run.{kind}" for kind in ("heartbeat", "Pending", "Running"))

DIED, WAITS = "a run whose process died", "a run that was never started"
"""What the automations are called."""

ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Suspended")
"""States, by their names, after which no heartbeat is due."""


def heartbeat_settings() -> dict[str, str]:
    """The environment in which a worker must run for its flow runs to send heartbeats."""
    return {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT)}


# Noticed by the server


def ensure_watch(
    name: str = "graft",
    silent: float = SILENT,
    tell: Iterable[str] = (),
    unstarted: float = UNSTARTED,
) -> None:
    """Makes the automations that end runs of `retrain` which are silent, or which a worker has taken and never started,
    on the server that PREFECT_API_URL names.

    Where they exist they are brought up to date; one that somebody has paused stays paused.

    Args:
        name: with which their names begin.
        silent: seconds without a heartbeat after which a run is ended.
        unstarted: seconds as `Pending` after which it is.
        tell: as `retrain.notify`. The server itself can tell through Prefect's blocks alone; for others there is
            `last_crash`.
    """
    gone = f"no sign of life for {silent:.0f} seconds: its process, or its machine, is gone"
    never = f"it was not started within {unstarted:.0f} seconds: the worker that took it is gone"
    with get_client(sync_client=True) as client:
        blocks = _blocks(client, tell)
        _ensure(client, _watch(f"{name}: {DIED}", HEARTBEAT, HEARTBEAT, silent, gone, blocks))
        _ensure(client, _watch(f"{name}: {WAITS}", PENDING, RUNNING, unstarted, never, blocks))


def _ensure(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    known = sorted(client.read_automations_by_name(wanted.name), key=lambda one: str(one.id))
    if not known:
        client.create_automation(wanted)
    for same in known[1:]:  # two processes have made it at once
        client.delete_automation(same.id)
    if known and _content(known[0]) != _content(wanted):
        client.update_automation(known[0].id, wanted.model_copy(update={"enabled": known[0].enabled}))


def _blocks(client: SyncPrefectClient, tell: Iterable[str]) -> list[UUID]:
    """The blocks that the server has; `notify.py` reports a missing one whenever it sends a notice."""
    found = []
    for place in tell:
        if place.startswith("env:") or "://" in place:
            continue
        kind, _, block = place.partition("/")
        with contextlib.suppress(ObjectNotFound):
            found.append(client.read_block_document_by_name(block, kind).id)
    return found


def _watch(name: str, after: str, expected: str, seconds: float, told: str, blocks: list[UUID]) -> AutomationCore:
    """Ends a run for which one event was not followed by the other, nor by its end, in so many seconds."""
    return AutomationCore(
        name=name,
        description="A run whose process is gone is ended, so that others may start.",
        enabled=True,
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": ["flow"], "prefect.resource.name": ["retrain"]}
            ),
            for_each={"prefect.resource.id"},
            after={after},
            expect={expected, *(f"prefect.flow-run.{end}" for end in ENDS)},
            threshold=1,
            within=timedelta(seconds=seconds),
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=told),
            *(
                SendNotification(block_document_id=block, subject="{{ flow_run.name }} has died", body=told + PAGE)
                for block in blocks
            ),
        ],
    )


def _content(automation: AutomationCore) -> dict[str, object]:
    """What of it is ours. Sets stay sets: an update for their order would make the server forget what it waits for."""
    return automation.model_dump(include={"description", "trigger", "actions"})


# Noticed on the same machine


def sign(flow_run_id: UUID | str) -> None:
    """Leaves with the flow run which process it is: this one."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(str(flow_run_id)), {PROCESS: processes.key(processes.me())})


def mark_crashed_runs(deployment_id: UUID | str) -> list[str]:
    """Ends runs of this deployment that are under way according to Prefect, but whose process on this machine is gone.

    Returns:
        Their names. Runs of other machines are left alone: the server's watch is for them.
    """
    with get_client(sync_client=True) as client:
        dead = [run for run in _under_way(client, UUID(str(deployment_id))) if _is_dead(run)]
        return [run.name for run in dead if _bury(client, run)]


def mark_crashed_runs_of(deployment: str) -> list[str]:
    """As `mark_crashed_runs`, of the deployment `flow/name`, if there is one."""
    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return []
    return mark_crashed_runs(known.id)


def last_crash(deployment_id: UUID | str) -> str:
    """What Prefect says of the last run of this deployment, if it crashed; else empty.

    For the next run to tell people, since a dead one cannot.
    """
    ended = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
    with get_client(sync_client=True) as client:
        for run in _runs(client, UUID(str(deployment_id)), ended, limit=1):
            if run.state is not None and run.state.is_crashed():
                return f"{run.name}: {run.state.message}"
    return ""


def _under_way(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    return _runs(client, deployment_id, [StateType.RUNNING, StateType.CANCELLING])


def _runs(
    client: SyncPrefectClient, deployment_id: UUID, states: list[StateType], limit: int | None = None
) -> list[FlowRun]:
    """Of the deployment in one of the states, the last ended first."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        sort=FlowRunSort.END_TIME_DESC,
        limit=limit,
    )


def _is_dead(run: FlowRun) -> bool:
    signed = str(run.labels.get(PROCESS, ""))
    return bool(signed) and processes.key_runs(signed) is False


def _bury(client: SyncPrefectClient, run: FlowRun) -> bool:
    _, pid, _ = str(run.labels[PROCESS]).rsplit(":", 2)
    state: State[Any] = Crashed(message=f"its process {pid} is gone: killed, or out of memory")
    return client.set_flow_run_state(run.id, state).status == SetStateStatus.ACCEPT  # else it has ended meanwhile
