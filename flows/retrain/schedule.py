"""The flow as a deployment with a schedule."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tasks.common.core.errors import GraftError
from tasks.environment import PROJECT

from ..runtime.login import login_hint
from ..runtime.servers import PREFECT_PORT, prefect_server, prepare_prefect
from .worktree import committed_params, repository


def check_schedule(cron: str, timezone: str) -> None:
    """Asks Prefect itself whether it would take the schedule.

    Raises:
        GraftError: not a cron expression, or not a time zone.
    """
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError as error:
        raise GraftError(
            "--cron or --timezone cannot be used",
            got=f"{cron!r}, {timezone!r}: {' '.join(str(error).split())[:200]}",
            allowed='five fields (minute hour day month weekday), as "0 2 * * *", and an IANA name, as Europe/Berlin',
            todo="correct the option",
        ) from None


def serve(root: Path, cron: str, timezone: str, name: str, port: int = PREFECT_PORT) -> None:
    """Serves `retrain`, unattended, until the process is ended. Starts a Prefect server if PREFECT_API_URL names none.

    One run at a time: runs that become due during another one are cancelled, or all would start after an outage.

    Raises:
        GraftError: the project is not under git, or the schedule makes no sense.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits to ignore it
    prepare_prefect(root)
    check_schedule(cron, timezone)
    repository(root)
    os.environ[PROJECT] = str(root)  # for the runs' processes, which refuse any other
    if os.environ.get("PREFECT_API_URL"):
        _serve(root, cron, timezone, name)
        return
    with prefect_server(root, port) as address:
        os.environ["PREFECT_API_URL"] = f"{address}/api"  # for the runs' processes
        print(f"Prefect: {address}\n{login_hint(root)}", flush=True)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: f"{address}/api"}):  # this one has read its settings already
            _serve(root, cron, timezone, name)


def _serve(root: Path, cron: str, timezone: str, name: str) -> None:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from .flow import retrain
    from .zombies import ensure_watch, mark_crashed_runs_of

    mark_crashed_runs_of(f"retrain/{name}")  # the server would cancel every new run because of one that crashed
    ensure_watch(recipients=committed_params(root).notify)
    print(f"serving retrain/{name}: {cron} ({timezone}); Ctrl-C ends it", flush=True)
    retrain.serve(
        name=name,
        schedule=Cron(cron, timezone=timezone),
        parameters={"project": str(root), "unattended": True},
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )
