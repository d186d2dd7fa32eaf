"""How long MLflow tries to reach its server. By itself it tries for minutes; what you have set stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"

FIRST = {RETRIES: "2", TIMEOUT: "7"}
"""For the first request: a server that is down or says nothing is noticed within half a minute."""

LATER = {RETRIES: "3", TIMEOUT: "60"}
"""For all others: a server may take its time for a large file."""


def be_patient() -> None:
    """Sets the limits of this process."""
    for name, value in LATER.items():
        os.environ.setdefault(name, value)


@contextmanager
def first_request() -> Iterator[None]:
    """Shorter limits while the block runs, also in a process that has inherited `LATER` from its parent."""
    before = {name: os.environ.get(name) for name in FIRST}
    os.environ.update({name: FIRST[name] for name, value in before.items() if value in (None, LATER[name])})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
