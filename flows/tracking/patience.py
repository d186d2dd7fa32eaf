"""How long MLflow tries to reach its server. By itself it tries for minutes; what you have set stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"

FIRST = {RETRIES: "2", TIMEOUT: "8"}
"""For the first request: a server that is down is noticed in five seconds, one that says nothing in half a minute."""

LATER = {RETRIES: "3", TIMEOUT: "60"}
"""For all others: a server may take its time for a large file."""


def be_patient() -> None:
    """Sets the limits of this process."""
    for name, value in LATER.items():
        os.environ.setdefault(name, value)


@contextmanager
def first_request() -> Iterator[None]:
    """Shorter limits for the time of the block."""
    mine = {name: value for name, value in FIRST.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)
