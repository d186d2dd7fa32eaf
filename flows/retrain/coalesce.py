"""Runs that are due: one does for all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled


def coalesce() -> int:
    """After an outage several runs are due at once: this one does for all; returns how many it has cancelled."""
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
    )
    mine = DeploymentFilter(id=DeploymentFilterId(any_=[runtime.deployment.id]))
    with get_client(sync_client=True) as client:
        late = [
            run
            for run in client.read_flow_runs(flow_run_filter=due, deployment_filter=mine)
            if str(run.id) != str(runtime.flow_run.id)
        ]
        for run in late:
            state: State[Any] = Cancelled(
                message=f"was due as well when {runtime.flow_run.name} began, which does for both"
            )
            client.set_flow_run_state(run.id, state, force=True)
    return len(late)
