"""How a stage and its recorder make sure of each other: both have the key, and neither waits for ever.

`multiprocessing` has no time limit for this: one caller that says nothing would block all others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any

Address = str | tuple[str, int]

LIMIT = 30.0
"""Seconds for the whole handshake."""


def listener() -> Listener:
    """An address for this process: an abstract socket, which has no file whose path could be too long, where the
    system has them; else a port of the loopback interface."""
    if sys.platform == "linux":
        return Listener(f"\0graft-{secrets.token_hex(16)}", "AF_UNIX")
    return Listener(("127.0.0.1", 0), "AF_INET")


def address_of(door: Listener) -> Address:
    """As JSON can hold it: Python gives an abstract name as bytes."""
    address: Any = door.address
    return address.decode("ascii") if isinstance(address, bytes) else address  # type: ignore[no-any-return]


def admit(line: Connection, key: bytes, limit: float = LIMIT) -> None:
    """The recorder's side.

    Raises:
        AuthenticationError: the caller does not have the key.
        EOFError, OSError: it hung up, or took too long.
    """
    with _within(line, limit):
        deliver_challenge(line, key)
        answer_challenge(line, key)


def call(address: Address, key: bytes, limit: float = LIMIT) -> Connection:
    """The stage's side: the line to the recorder.

    Raises:
        AuthenticationError: what answers does not have the key.
        EOFError, OSError: nothing answers, or takes too long.
    """
    line = Client(address)
    try:
        with _within(line, limit):
            answer_challenge(line, key)
            deliver_challenge(line, key)
    except BaseException:
        line.close()
        raise
    return line


@contextmanager
def _within(line: Connection, limit: float) -> Iterator[None]:
    """Ends the conversation after so many seconds, whatever it waits for."""
    with socket.socket(fileno=os.dup(line.fileno())) as raw:
        timer = threading.Timer(limit, _hang_up, [raw])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _hang_up(raw: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other side was faster
        raw.shutdown(socket.SHUT_RDWR)
