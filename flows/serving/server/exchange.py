"""One request and its answer, with the patience that a client gets for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Message, Receive, Scope, Send

from .refusal import Refusal, busy
from .settings import BODY_RATE, BODY_SECONDS, BUFFERED_BYTES, LINGER_BYTES, LINGER_SECONDS, SEND_SECONDS


class Buffered:
    """Bytes of all bodies that this process holds."""

    def __init__(self, most: int = BUFFERED_BYTES) -> None:
        self.used, self._most = 0, most

    def add(self, size: int) -> None:
        """Raises:
        Refusal: there are too many already.
        """
        if self.used + size > self._most:
            raise busy("too many bytes are being received; try again", "memory")
        self.used += size


class Exchange:
    """The two ends of an ASGI request: `receive` and `send` for the application, with time limits.

    A client that is still sending when it is refused reads the answer only after it has sent all: so the rest of the
    body is read and dropped for a moment before the connection is closed.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._receive, self._send = receive, send
        self.arrived = not (b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0")
        self._waits_to_send = b"expect" in headers
        self._began = asyncio.get_running_loop().time()
        self._bytes = 0
        self.status = 0
        self.finished = False

    async def receive(self) -> Message:
        """Raises:
        Refusal: the body comes too slowly.
        """
        try:
            async with asyncio.timeout_at(self._began + BODY_SECONDS + self._bytes / BODY_RATE):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(408, "the body of the request arrives too slowly", "slow") from None
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self.arrived = self.arrived or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self.arrived:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        elif not message.get("more_body", False):
            self.finished = True
            if not self.arrived and not self._waits_to_send:
                await self._pass_on({**message, "more_body": True})
                await self._linger()
                message = {"type": "http.response.body", "body": b""}
        await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._send(message)

    async def _linger(self) -> None:
        dropped = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while dropped < LINGER_BYTES:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    async def refuse(self, refusal: Refusal) -> None:
        """Answers with the reason, unless an answer has begun."""
        if self.status:
            return
        body = refusal.body
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        headers.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


async def body_of(stream: AsyncIterator[bytes], declared: str | None, most: int, buffered: Buffered) -> bytes:
    """The body of a request; the bytes stay counted in `buffered`, for the caller to take off.

    Raises:
        Refusal: it is too large, which is found out before all of it has been read.
    """
    if declared is not None and int(declared) > most:
        raise too_large(most)
    chunks, size = [], 0
    try:
        async for chunk in stream:
            if size + len(chunk) > most:
                raise too_large(most)
            buffered.add(len(chunk))
            size += len(chunk)
            chunks.append(chunk)
    except BaseException:
        buffered.used -= size
        raise
    return b"".join(chunks)


def too_large(most: int) -> Refusal:
    return Refusal(413, f"the request has more than {most:,} bytes", "too_large")
