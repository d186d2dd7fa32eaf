"""A deployment runs its own project alone."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from projects import ask

from graft.flows.retrain.deployment import refuse_another_project
from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import PROJECT

DEPLOYMENT = "PREFECT__RUNTIME__DEPLOYMENT__ID"
"""By which Prefect lets tests say which deployment the run is of."""


def deployment(prefect_api: dict[str, str], parameters: dict[str, str]) -> UUID:
    async def make(client):  # type: ignore[no-untyped-def]
        flow = await client.create_flow_from_name("deployed")
        return await client.create_deployment(flow, f"of {sorted(parameters)}", parameters=parameters)

    return UUID(str(ask(prefect_api, make)))


def test_the_worker_or_else_the_deployment_names_the_only_project(
    prefect_api: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    monkeypatch.delenv(PROJECT, raising=False)
    refuse_another_project(other)  # without a deployment it is the caller's choice

    url, login = prefect_api["PREFECT_API_URL"], prefect_api["PREFECT_API_AUTH_STRING"]
    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: login}):
        monkeypatch.setenv(DEPLOYMENT, str(deployment(prefect_api, {"project": str(own)})))
        refuse_another_project(own)
        with pytest.raises(GraftError, match=f"another project\n  got:     {other}\n  allowed: {own}"):
            refuse_another_project(other)

        monkeypatch.setenv(PROJECT, str(other))
        refuse_another_project(other)
        with pytest.raises(GraftError, match=f"allowed: {other}"):
            refuse_another_project(own)

        monkeypatch.delenv(PROJECT)
        monkeypatch.setenv(DEPLOYMENT, str(deployment(prefect_api, {})))
        with pytest.raises(GraftError, match="allowed: none"):
            refuse_another_project(own)
