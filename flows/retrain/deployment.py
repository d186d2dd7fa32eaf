"""A deployment is for one project: a run that names another is refused."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client

from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import PROJECT


def refuse_another_project(root: Path) -> None:
    """Allows a deployment to run only the project that GRAFT_PROJECT or the deployment's own parameters name.

    A project is code, and anyone who can start a run through Prefect's API can pass any folder as its parameter.
    Without a deployment the caller chooses the project.

    Raises:
        GraftError: the run names another project.
    """
    if not runtime.deployment.id:
        return
    own = os.environ.get(PROJECT) or _parameter(str(runtime.deployment.id))
    if not own or Path(own).resolve() != root.resolve():
        raise GraftError(
            "this deployment runs another project",
            got=str(root),
            allowed=own or f"none: neither {PROJECT} nor the deployment's parameter `project` names one",
            todo="start the run without the parameter `project`, or create a deployment for that project",
        )


def refuse_another_source(source: str) -> None:
    """Allows a deployment to read only the folder that its own parameter names: anyone who can start a run could have
    Graft list any other.

    Raises:
        GraftError: the run names another folder.
    """
    if not runtime.deployment.id:
        return
    own = _parameter(str(runtime.deployment.id), "source")
    if own != source:
        raise GraftError(
            "this deployment reads another folder",
            got=source,
            allowed=own,
            todo="start the run without the parameter `source`, or create a deployment for that folder",
        )


def _parameter(deployment_id: str, name: str = "project") -> str:
    with get_client(sync_client=True) as client:
        return str(client.read_deployment(UUID(deployment_id)).parameters.get(name) or "")
