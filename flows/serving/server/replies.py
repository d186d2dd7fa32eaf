"""Answers as JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from .refusal import Refusal
from .runner import Runner
from .service import Outcome


def reply(document: Any, status: int = 200) -> Response:
    return Response(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")),
        status,
        {"cache-control": "no-store"},
        "application/json",
    )


def refused(refusal: Refusal) -> Response:
    return Response(refusal.body, refusal.status, refusal.headers)


def model_of(runner: Runner) -> dict[str, str]:
    return {"name": runner.name, "version": runner.version}


def entry_of(outcome: Outcome, runner: Runner) -> dict[str, Any]:
    """An answer with its model, or the reason for none."""
    return outcome.of("this").document if isinstance(outcome, Refusal) else {**outcome, "model": model_of(runner)}


def reply_to_one(outcome: Outcome, runner: Runner) -> Response:
    return refused(outcome.of("this")) if isinstance(outcome, Refusal) else reply(entry_of(outcome, runner))


def reply_to_many(outcomes: list[Outcome], runner: Runner) -> Response:
    """A list; its status is that of the first refusal if no image was answered."""
    refusals = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    status = refusals[0].status if refusals and len(refusals) == len(outcomes) else 200
    return reply([entry_of(outcome, runner) for outcome in outcomes], status)


def all_answered(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Raises:
    Refusal: one is not; names its place.
    """
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Refusal):
            raise outcome.of(f"input {place}")
    return [outcome for outcome in outcomes if isinstance(outcome, dict)]
