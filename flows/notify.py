"""Who is told of a failure, a refusal or a promotion: webhooks, and Prefect's notification blocks."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import requests

from tasks.common.errors import GraftError

About = Literal["failure", "refusal", "promotion"]

TIMEOUT = 10.0
"""Seconds within which a webhook must answer."""

TRIES = 3


@dataclass(frozen=True)
class Notice:
    """What people are told.

    Attributes:
        about: the kind.
        title: one line.
        text: the rest, in Markdown.
        links: name -> address.
        facts: for machines.
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
    """Tells all; returns what could not be told, for the log: nobody's deafness may fail a run."""
    problems = []
    for place in places:
        try:
            _tell(place, notice)
        except Exception as error:  # noqa: BLE001  (a block may raise anything)
            problems.append(f"{_name(place)} was not told: {type(error).__name__}: {error}")
    return problems


def _tell(place: str, notice: Notice) -> None:
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
    """JSON with `text`, which Slack, Mattermost and Teams show, and all of the notice for others."""
    content = {**asdict(notice), "text": notice.words()}
    for remaining in reversed(range(TRIES)):
        try:
            requests.post(address, json=content, timeout=TIMEOUT).raise_for_status()
            return
        except requests.RequestException:
            if not remaining:
                raise


def _through_block(place: str, notice: Notice) -> None:
    from prefect.blocks.core import Block

    block: Any = Block.load(place)
    block.notify(notice.words(), subject=notice.title)


def _name(place: str) -> str:
    """Without what may be secret in an address."""
    return place.split("://")[0] + "://" + place.split("://")[1].split("/")[0] if "://" in place else place
