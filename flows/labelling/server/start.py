"""`graft label`: the label page on this machine, or behind a key for others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from graft.tasks.common.core.progress import say

from ...serving.server.guard import Admission, allowed_hosts, secured
from ...serving.server.process import QuietServer, bind, say_where
from ...serving.server.refusal import Refusal
from ...serving.server.replies import refused
from ...serving.server.start import need_key, read_key
from ..publish import publish_labels
from ..take_over import take_over_labelled
from .app import build
from .room import Room

OPEN = frozenset({"/", "/static/page.js", "/static/page.css", "/favicon.ico"})
"""Without a key: they say nothing of the images."""


@dataclass(frozen=True)
class Settings:
    """Attributes:
    twice: the share of images that two people are asked about.
    commit: whether data/labels.csv is committed and pushed at the end, and the images left to the next unattended run.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    key_file: Path | None = None
    hosts: tuple[str, ...] = ()
    twice: float = 0.0
    commit: bool = False


def label(root: Path, settings: Settings) -> str:
    """Serves the page until the process is told to end; then images of the pool that have a label are imported, or the
    answers are published.

    Returns:
        What became of the answers.

    Raises:
        ParamsError: others could reach it without a key, or the key cannot be used.
        GraftError: the port is in use, the project cannot be read, or the answers cannot be committed.
    """
    key = read_key(settings.key_file)
    need_key(settings.host, key)
    taken = 0 if settings.commit else take_over_labelled(root)  # of a server that was killed
    if taken:
        say(f"label: {_imported(taken)}")
    bound = bind(settings.host, settings.port)
    room = Room(root, settings.twice)
    bound.listen(128)
    say_where(settings.host, bound.getsockname()[1])
    admission = Admission(allowed_hosts(settings.host, list(settings.hosts)), key, OPEN)
    config = uvicorn.Config(
        Guarded(build(room, key=bool(key)), admission),
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    QuietServer(config).run(sockets=[bound])
    return publish_labels(root).sentence() if settings.commit else _imported(take_over_labelled(root))


def _imported(count: int) -> str:
    return f"{count:,} images with a label imported into data/raw"


class Guarded:
    """Lets through what may ask, and gives each answer the headers that protect it."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            self._admission.check(scope)
        except Refusal as refusal:
            await refused(refusal)(scope, receive, secured(send))
            return
        await self._app(scope, receive, secured(send))
