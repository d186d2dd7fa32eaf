"""Clients that are too slow, and bytes that are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from graft.flows.serving.server import exchange
from graft.flows.serving.server.exchange import Buffered, Exchange, body_of
from graft.flows.serving.server.refusal import Refusal

SCOPE = {"type": "http", "headers": [(b"content-length", b"100")]}


async def never(*_: Any) -> Any:
    await asyncio.Event().wait()


async def chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


def test_a_body_that_does_not_come_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.01)

    async def receive() -> None:
        await Exchange(SCOPE, never, never).receive()

    with pytest.raises(Refusal, match="too slowly") as refused:
        asyncio.run(receive())
    assert refused.value.status == 408


def test_a_body_that_comes_byte_by_byte_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(exchange, "BODY_RATE", 1e9)

    async def byte() -> Any:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def receive() -> int:
        slow, count = Exchange(SCOPE, byte, never), 0
        try:
            while True:
                await slow.receive()
                count += 1
        except Refusal:
            return count

    assert asyncio.run(receive()) > 0


def test_a_client_that_takes_no_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SEND_SECONDS", 0.01)

    async def send() -> None:
        await Exchange({"headers": []}, never, never).send(
            {"type": "http.response.start", "status": 200, "headers": []}
        )

    with pytest.raises(TimeoutError):
        asyncio.run(send())


def test_a_refused_client_that_goes_on_sending_for_ever_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.01)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def refuse() -> None:
        await Exchange(SCOPE, never, send).refuse(Refusal(413, "too much", "too_large"))

    asyncio.run(refuse())

    assert (b"connection", b"close") in sent[0]["headers"]
    assert [message.get("more_body", False) for message in sent[1:]] == [True, False]


def test_bytes_are_counted_while_they_are_held_and_not_after_a_refusal() -> None:
    buffered = Buffered(100)

    assert asyncio.run(body_of(chunks(30, 30), None, 100, buffered)) == bytes(60)
    assert buffered.used == 60
    with pytest.raises(Refusal) as refused:
        asyncio.run(body_of(chunks(30, 30), None, 100, buffered))
    assert refused.value.status == 503
    assert buffered.used == 60
    with pytest.raises(Refusal) as refused:
        asyncio.run(body_of(chunks(10, 10), None, 15, buffered))
    assert (refused.value.status, buffered.used) == (413, 60)


def test_a_declared_length_is_refused_before_anything_is_read() -> None:
    with pytest.raises(Refusal, match="more than 10 bytes"):
        asyncio.run(body_of(chunks(), "11", 10, Buffered()))
