"""Flow runs whose process has ended are marked as crashed: they do not stay `Running` for ever.

In two ways, since neither detects every crash. The server listens for the heartbeats that Prefect sends from the
process of each flow run, and marks a run that has been silent for too long: this also covers a machine that has
disappeared. And another process on the same machine sees at once that a process has ended.

Of a deployment only one run may be active, so that a crashed run still marked as `Running` would block all others.
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
"""Seconds of silence after which a run counts as crashed: longer than a restart of the server takes."""

UNSTARTED = 1800.0
"""Seconds that a run may be `Pending`: the worker that has taken it may have to fetch an image first."""

PROCESS = "graft.process"
"""The label of a flow run that holds the key of its process."""

PAGE = "\n\n{{ flow_run|ui_url or flow_run.id }}"
"""The address of the run, if the server knows its own (PREFECT_UI_URL)."""

HEARTBEAT, PENDING, RUNNING = (f"prefect.flow-run.{kind}" for kind in ("heartbeat", "Pending", "Running"))

CRASHED, UNCLAIMED = "a run that crashed", "a run that never started"
"""The names of the automations, after a prefix."""

ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "TimedOut", "Suspended")
"""Names of the states after which no heartbeat is expected."""


def heartbeat_settings() -> dict[str, str]:
    """The variables that a worker needs for its flow runs to send heartbeats."""
    return {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(BEAT)}


# Detected by the server


def ensure_watch(
    name: str = "graft",
    silent: float = SILENT,
    recipients: Iterable[str] = (),
    unstarted: float = UNSTARTED,
) -> None:
    """Creates, on the server that PREFECT_API_URL names, the automations that mark runs of `retrain` as crashed: those
    that are silent, and those that a worker has taken and never started.

    Existing automations are updated; one that somebody has paused stays paused.

    Args:
        name: the prefix of their names.
        silent: seconds without a heartbeat after which a run is marked.
        recipients: as `retrain.notify`. The server can notify only Prefect's blocks; the next run notifies the others,
            see `last_crash`.
        unstarted: seconds as `Pending` after which a run is marked.
    """
    silence = f"no heartbeat for {silent:.0f} seconds: its process has ended, or its machine is unreachable"
    never = f"it was not started within {unstarted:.0f} seconds: the worker that took it has ended"
    with get_client(sync_client=True) as client:
        blocks = _blocks(client, recipients)
        _ensure(client, _watch(f"{name}: {CRASHED}", HEARTBEAT, HEARTBEAT, silent, silence, blocks))
        _ensure(client, _watch(f"{name}: {UNCLAIMED}", PENDING, RUNNING, unstarted, never, blocks))


def _ensure(client: SyncPrefectClient, wanted: AutomationCore) -> None:
    known = sorted(client.read_automations_by_name(wanted.name), key=lambda one: str(one.id))
    if not known:
        client.create_automation(wanted)
    for same in known[1:]:  # two processes created it at the same time
        client.delete_automation(same.id)
    if known and _content(known[0]) != _content(wanted):
        client.update_automation(known[0].id, wanted.model_copy(update={"enabled": known[0].enabled}))


def _blocks(client: SyncPrefectClient, recipients: Iterable[str]) -> list[UUID]:
    """The blocks that exist on the server; `send_notice.py` reports a missing one whenever it sends a notice."""
    found = []
    for place in recipients:
        if place.startswith("env:") or "://" in place:
            continue
        kind, _, block = place.partition("/")
        with contextlib.suppress(ObjectNotFound):
            found.append(client.read_block_document_by_name(block, kind).id)
    return found


def _watch(name: str, after: str, expected: str, seconds: float, message: str, blocks: list[UUID]) -> AutomationCore:
    """Marks a run if neither the expected event nor its end follows the first event within so many seconds."""
    return AutomationCore(
        name=name,
        description="Marks a run whose process has ended as crashed, so that others can start.",
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
            ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message),
            *(
                SendNotification(block_document_id=block, subject="{{ flow_run.name }} crashed", body=message + PAGE)
                for block in blocks
            ),
        ],
    )


def _content(automation: AutomationCore) -> dict[str, object]:
    """The part that Graft sets. Sets stay sets: an update of their order would reset what the server waits for."""
    return automation.model_dump(include={"description", "trigger", "actions"})


# Detected on the same machine


def sign(flow_run_id: UUID | str) -> None:
    """Labels the flow run with the key of this process."""
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(UUID(str(flow_run_id)), {PROCESS: processes.key(processes.me())})


def mark_crashed_runs(deployment_id: UUID | str) -> list[str]:
    """Marks runs of this deployment that are active according to Prefect, but whose process on this machine has ended.

    Returns:
        Their names. Runs of other machines are left to the automations on the server.
    """
    with get_client(sync_client=True) as client:
        crashed = [run for run in _active(client, UUID(str(deployment_id))) if _has_crashed(run)]
        return [run.name for run in crashed if _mark(client, run)]


def mark_crashed_runs_of(deployment: str) -> list[str]:
    """`mark_crashed_runs` for the deployment `flow/name`, if it exists."""
    with get_client(sync_client=True) as client:
        try:
            known = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return []
    return mark_crashed_runs(known.id)


def last_crash(deployment_id: UUID | str) -> str:
    """Name and message of the last run of this deployment, if it crashed; else empty.

    The next run sends the notification, since a crashed run cannot.
    """
    ended = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
    with get_client(sync_client=True) as client:
        for run in _runs(client, UUID(str(deployment_id)), ended, limit=1):
            if run.state is not None and run.state.is_crashed():
                return f"{run.name}: {run.state.message}"
    return ""


def _active(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    return _runs(client, deployment_id, [StateType.RUNNING, StateType.CANCELLING])


def _runs(
    client: SyncPrefectClient, deployment_id: UUID, states: list[StateType], limit: int | None = None
) -> list[FlowRun]:
    """Runs of the deployment in one of the states, the last to end first."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        sort=FlowRunSort.END_TIME_DESC,
        limit=limit,
    )


def _has_crashed(run: FlowRun) -> bool:
    signed = str(run.labels.get(PROCESS, ""))
    return bool(signed) and processes.key_runs(signed) is False


def _mark(client: SyncPrefectClient, run: FlowRun) -> bool:
    _, pid, _ = str(run.labels[PROCESS]).rsplit(":", 2)
    state: State[Any] = Crashed(message=f"its process {pid} has ended: killed, or out of memory")
    return client.set_flow_run_state(run.id, state).status == SetStateStatus.ACCEPT  # it may have ended in the meantime
