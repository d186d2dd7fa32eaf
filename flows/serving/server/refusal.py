"""Why a request is not answered: a status, one sentence, and the word under which it is counted."""

from __future__ import annotations

import json
from typing import Any


class Refusal(Exception):
    """Args:
    status: of HTTP.
    reason: one sentence for the client.
    kind: for `graft_refused_total`.
    retry: seconds after which the client may try again; 0 for never.
    """

    def __init__(self, status: int, reason: str, kind: str, retry: int = 0) -> None:
        self.status, self.reason, self.kind, self.retry = status, reason, kind, retry
        self.counted = False
        super().__init__(reason)

    def of(self, what: str) -> Refusal:
        """The same with a subject: what of the request is refused."""
        same = Refusal(self.status, f"{what} {self.reason}", self.kind, self.retry)
        same.counted = self.counted
        return same

    @property
    def headers(self) -> dict[str, str]:
        found = {"content-type": "application/json", "cache-control": "no-store"}
        if self.retry:
            found["retry-after"] = str(self.retry)
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        return found

    @property
    def document(self) -> dict[str, Any]:
        return {"error": self.reason}

    @property
    def body(self) -> bytes:
        return json.dumps(self.document).encode()


def busy(reason: str, kind: str) -> Refusal:
    return Refusal(503, reason, kind, retry=1)
