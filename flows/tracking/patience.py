"""How long MLflow tries to reach its server, and why it could not. By itself it tries for minutes; what you have set
stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3.exceptions
from mlflow.exceptions import MlflowException, RestException

RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"

FIRST = {RETRIES: "2", TIMEOUT: "5"}
"""For the first request: a server that is down or says nothing is noticed within half a minute, the start
of the command included."""

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


def server_may_recover(error: BaseException) -> bool:
    """Whether MLflow failed because its server could not be reached or had an error of its own (5xx)."""
    if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.RetryError):
        return True
    if isinstance(error, RestException) and error.get_http_status_code() >= 500:
        return True
    if isinstance(error, MlflowException) and "failed with error code 5" in str(error):
        return True
    origin = error.__cause__ or error.__context__
    return origin is not None and server_may_recover(origin)


def reason_of(error: BaseException) -> str:
    """Why MLflow failed, in a line."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return "nothing listens there" if "refused" in str(cause) else str(cause).rpartition(": ")[2]
        if isinstance(cause, urllib3.exceptions.ReadTimeoutError):
            return "it accepts the connection, and says nothing: " + str(cause).rpartition(": ")[2]
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, also the reason within urllib3's `MaxRetryError`."""
    while error is not None:
        yield error
        reasons = [error.reason] if isinstance(error, urllib3.exceptions.MaxRetryError) else []
        yield from filter(None, reasons)
        error = error.__cause__ or error.__context__
