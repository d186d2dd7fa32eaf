"""One run for all that are due."""

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
    """Cancels the other runs of the deployment that are due, as after an outage; returns how many."""
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
                message=f"{runtime.flow_run.name}, which was due at the same time, replaces this run"
            )
            client.set_flow_run_state(run.id, state, force=True)
    return len(late)
