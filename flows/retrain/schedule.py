"""The flow as a deployment with a schedule."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import datetime
from pathlib import Path

from graft.tasks.common.core.errors import GraftError
from graft.tasks.environment import PROJECT

from ..runtime.login import login_hint
from ..runtime.servers import PREFECT_PORT, prefect_server, prepare_prefect
from .worktree import committed_params, destination_of, repository

FIELDS = "minute hour day month weekday"


def next_run(cron: str, timezone: str) -> datetime:
    """When a schedule starts the next run, as Prefect reckons it.

    Raises:
        GraftError: the schedule is not five fields, its time zone is unknown, or it never starts a run.
    """
    from prefect.server.schemas.schedules import CronSchedule

    try:
        if len(cron.split()) != len(FIELDS.split()):
            raise ValueError(f"{len(cron.split())} fields")
        if not timezone.strip():
            raise ValueError("the time zone is empty")
        return asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(1))[0]
    except ValueError as error:
        reason = "there is no such date" if "find next date" in str(error) else " ".join(str(error).split())[:200]
        raise GraftError(
            "--cron or --timezone cannot be used",
            got=f"{cron!r}, {timezone!r}: {reason}",
            allowed=f'five fields ({FIELDS}) that match a date, as "0 2 * * *"; an IANA time zone, as Europe/Berlin',
            todo="correct the option",
        ) from None


def run_on_schedule(
    root: Path, cron: str, timezone: str, name: str, port: int = PREFECT_PORT, drift_of: Path | None = None
) -> None:
    """Runs `retrain` unattended on a schedule until the process ends, or `drift` for a folder. Starts a Prefect server
    if PREFECT_API_URL is not set.

    One run at a time: runs that become due meanwhile are cancelled, so that they do not all start after an outage.

    Raises:
        GraftError: the project is not under git, or the schedule cannot be used.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that SIGINT is ignored
    prepare_prefect(root)
    next_run(cron, timezone)  # refuse a wrong schedule before a server is started
    if drift_of is None:
        repository(root)
        print(place_of_results(root), flush=True)
    else:
        _check_source(drift_of)
    os.environ[PROJECT] = str(root)  # for the processes of the runs, which refuse any other project
    if os.environ.get("PREFECT_API_URL"):
        _serve_deployment(root, cron, timezone, name, drift_of)
        return
    with prefect_server(root, port) as address:
        os.environ["PREFECT_API_URL"] = f"{address}/api"  # for the processes of the runs
        print(f"Prefect: {address}\n{login_hint(root)}", flush=True)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: f"{address}/api"}):  # this process has read its settings already
            _serve_deployment(root, cron, timezone, name, drift_of)


def _check_source(source: Path) -> None:
    """Raises:
    GraftError: there is nothing to read, now or later.
    """
    if not source.exists():
        raise GraftError(
            "the images for --drift do not exist",
            got=str(source),
            allowed="a folder of images, or a table of their paths",
            todo="create the folder, or correct the option",
        )


def place_of_results(root: Path) -> str:
    """Where the results will go, and what to do if they stay on this machine."""
    goes = destination_of(root, committed_params(root))
    return f"{goes}\n  do: {goes.todo}" if goes.todo else str(goes)


def _serve_deployment(root: Path, cron: str, timezone: str, name: str, drift_of: Path | None) -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from .flow import retrain
    from .watch_drift import drift
    from .zombies import ensure_watch, mark_crashed_runs_of

    flow = drift if drift_of else retrain
    mark_crashed_runs_of(f"{flow.name}/{name}")  # for the server they still run, and it would cancel every new run
    if drift_of is None:
        ensure_watch(recipients=committed_params(root).notify)
    print(f"{flow.name}/{name} is scheduled: {cron} ({timezone}); Ctrl-C stops it", flush=True)
    print(f"next run: {next_run(cron, timezone):%Y-%m-%d %H:%M %Z}", flush=True)
    own = {"source": str(drift_of.resolve())} if drift_of else {"unattended": True}
    flow.serve(
        name=name,
        schedule=Cron(cron, timezone=timezone),
        parameters={"project": str(root), **own},
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )
