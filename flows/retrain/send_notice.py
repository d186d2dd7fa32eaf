"""Notifications of failures, refusals, promotions, drift and images to label: to webhooks and Prefect's blocks."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from time import sleep
from typing import Any, Literal

import requests

from graft.tasks.addresses import host_of
from graft.tasks.common.core.errors import GraftError

About = Literal["failure", "refusal", "promotion", "drift", "labels"]

TIMEOUT = 10.0
"""Seconds within which a webhook must answer."""

WAITS = (1.0, 5.0)
"""Seconds before the second and the third attempt at a webhook that does not answer."""


@dataclass(frozen=True)
class Notice:
    """The content of a notification.

    Attributes:
        about: its kind.
        title: one line.
        text: the rest, in Markdown.
        links: name -> address.
        facts: for programs.
    """

    about: About
    title: str
    text: str = ""
    links: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def words(self) -> str:
        lines = [self.title, *([self.text] if self.text else [])]
        return "\n\n".join([*lines, *(f"{name}: {address}" for name, address in self.links.items() if address)])


def notify(places: list[str], notice: Notice) -> list[str]:
    """Notifies all recipients; returns the failures, for the log: a recipient that cannot be reached fails no run.

    An address may itself be a secret, and libraries quote it in their errors: of these only the type is returned.
    """
    problems = []
    for place in places:
        try:
            _send(place, notice)
        except GraftError as error:
            problems.append(f"{_name(place)} was not notified: {error}")
        except Exception as error:  # noqa: BLE001  (a block may raise anything)
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = type(error).__name__ + (f", status {status}" if status else "")
            problems.append(f"{_name(place)} was not notified: {reason}")
    return problems


def _send(place: str, notice: Notice) -> None:
    if place.startswith("env:"):
        variable = place.removeprefix("env:")
        address = os.environ.get(variable, "")
        if not address:
            raise GraftError(f"the variable {variable} of `retrain.notify` is not set", todo="set it to the address")
        _post(address, notice)
    elif "://" in place:
        _post(place, notice)
    else:
        _through_block(place, notice)


def _post(address: str, notice: Notice) -> None:
    """Posts JSON with `text`, which Slack, Mattermost and Teams show, and the whole notice for other receivers."""
    content = {**asdict(notice), "text": notice.words()}
    for wait in (*WAITS, None):
        try:
            requests.post(address, json=content, timeout=TIMEOUT).raise_for_status()
            return
        except requests.RequestException as error:
            if wait is None or not _may_pass(error):
                raise
            sleep(wait)


def _may_pass(error: requests.RequestException) -> bool:
    """Whether the same request may succeed later."""
    if error.response is not None:
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, requests.ConnectionError | requests.Timeout)


def _through_block(place: str, notice: Notice) -> None:
    from prefect.blocks.core import Block

    try:
        block: Any = Block.load(place)
    except ValueError:
        raise GraftError(f"Prefect has no block `{place}`", todo="create it, or correct `retrain.notify`") from None
    block.notify(notice.words(), subject=notice.title)


def _name(place: str) -> str:
    """The recipient without the secrets that its address may hold."""
    return host_of(place) if "://" in place else place
