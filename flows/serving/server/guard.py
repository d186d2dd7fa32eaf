"""What every request passes first: the host that it names, the page that sends it, the key; and what every answer gets:
no traceback, and its time measured."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from .desk import Desk
from .exchange import Exchange
from .metrics import Metrics
from .refusal import Refusal
from .settings import Settings

LOG = logging.getLogger("graft.serve")

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")

HEALTH = frozenset({"/ping", "/health", "/live", "/ready", "/v2/health/live", "/v2/health/ready"})
"""For probes, which know neither the name of the host nor the key."""

OPEN = HEALTH | {"/", "/docs", "/openapi.json", "/static/page.js", "/static/page.css", "/favicon.ico"}
"""Without a key: they say nothing of the model or of what it answered."""

HEADERS = 16384
"""Bytes of all headers and the address."""

FIXED = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]


class Guard:
    """Args:
    app: what answers.
    """

    def __init__(self, app: ASGIApp, settings: Settings, desk: Desk, metrics: Metrics) -> None:
        self._app, self._desk, self._metrics = app, desk, metrics
        self._admission = Admission(settings.hosts, settings.key, OPEN, HEALTH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        exchange = Exchange(scope, receive, secured(send, self._last))
        try:
            await self._answer(scope, exchange)
        except TimeoutError:
            LOG.info("a client took no answer for too long")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            status = f"{exchange.status // 100}xx" if exchange.status else "none"
            self._metrics.seconds.labels(route, status).observe(time.perf_counter() - began)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        try:
            self._admission.check(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except Refusal as refusal:
            self._metrics.refuse(refusal)
            await exchange.refuse(refusal)
        except (TimeoutError, asyncio.CancelledError):
            raise
        except Exception:
            LOG.exception("a request failed")
            self._metrics.refused.labels("fault").inc()
            await exchange.refuse(Refusal(500, "the server failed on this request; its log says why", "fault"))

    def _last(self) -> list[tuple[bytes, bytes]]:
        """The last answers of a server that ends say so."""
        return [(b"connection", b"close")] if self._desk.draining else []


class Admission:
    """Who may ask.

    Args:
        hosts: allowed names in the header `Host`; empty for any.
        key: that is needed; empty for none.
        open_: paths that need no key.
        health: paths that need neither.
    """

    def __init__(
        self, hosts: tuple[str, ...], key: str, open_: frozenset[str], health: frozenset[str] = frozenset()
    ) -> None:
        self._hosts, self._open, self._health = hosts, open_, health
        self._key = _digest(key.encode()) if key else b""

    def check(self, scope: Scope) -> None:
        """Raises:
        Refusal: the request is not let through.
        """
        headers, path = list(scope["headers"]), scope["path"]
        if sum(len(name) + len(value) for name, value in headers) + len(path) > HEADERS:
            raise Refusal(431, f"the headers of the request have more than {HEADERS:,} bytes", "malformed")
        if path in self._health:
            return
        self._check_host(headers)
        if path not in self._open and self._key:
            self._check_key(headers)

    def _check_host(self, headers: list[tuple[bytes, bytes]]) -> None:
        host = _one(headers, b"host")
        if self._hosts and _name(host) not in self._hosts:
            raise Refusal(421, "this server is not known under the host name of the request", "host")
        origin = _one(headers, b"origin")
        if (origin and urlsplit(origin).netloc != host) or _one(headers, b"sec-fetch-site") == "cross-site":
            raise Refusal(403, "pages of other sites may not ask this server", "origin")

    def _check_key(self, headers: list[tuple[bytes, bytes]]) -> None:
        scheme, _, key = _one(headers, b"authorization").partition(" ")
        right = hmac.compare_digest(_digest(key.strip().encode("latin-1")), self._key)
        if scheme.lower() != "bearer" or not right:
            raise Refusal(401, "a key is needed, in the header `Authorization: Bearer KEY`", "key")


def secured(send: Send, more: Callable[[], list[tuple[bytes, bytes]]] = list) -> Send:
    """Each answer gets the fixed headers, and those of `more`."""

    async def marked(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *FIXED, *more()]}  # type: ignore[misc]
        await send(message)

    return marked  # type: ignore[return-value]


def allowed_hosts(host: str, given: list[str]) -> tuple[str, ...]:
    """The names under which a server may be asked; empty for any, if it is open to a network and none was given."""
    if not given and not is_loopback(host):
        return ()
    return tuple(dict.fromkeys([*LOOPBACK, host.lower(), *(name.lower() for name in given)]))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _one(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    """The value of a header that may be there once.

    Raises:
        Refusal: it is there more often.
    """
    found = [value.decode("latin-1") for key, value in headers if key == name]
    if len(found) > 1:
        raise Refusal(400, f"the request has several headers `{name.decode()}`", "malformed")
    return found[0] if found else ""


def _name(host: str) -> str:
    """Of a header `Host`, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower().rstrip(".")
