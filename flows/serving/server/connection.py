"""uvicorn's HTTP connection, with limits that it lacks: time for the headers, and a number of connections."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .settings import HEADER_SECONDS, MAX_CONNECTIONS


class Connection(H11Protocol):
    """A client may hold a connection idle, but neither begin a request and leave it, nor keep others out."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._idle:
            self._disarm()
        elif self._header_timer is None and self.timeout_keep_alive_task is None:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _arm(self) -> None:
        self.since = self.loop.time()
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _disarm(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if self._idle and not self.transport.is_closing():
            self.transport.close()

    def _make_room(self) -> None:
        """Closes the connection that is idle for longest; without one, this new one."""
        idle: list[Any] = [one for one in self.connections if getattr(one, "_idle", False) and one is not self]
        (min(idle, key=lambda one: one.since) if idle else self).transport.close()
