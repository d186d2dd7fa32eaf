"""The findings, compared with the limits in `params.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..common.core.errors import DataError
from .params import Action


@dataclass(frozen=True)
class Verdict:
    """The result of one check.

    Attributes:
        name: as in `audit.max_<name>` and `audit.on_<name>`.
        what: what was counted, in words: text is `found` of `of` `what`.
        found, of: the count, and of how many.
        limit: `audit.max_<name>`: a share if below 1, otherwise a number.
        action: `audit.on_<name>`.
    """

    name: str
    what: str
    found: int
    of: int
    limit: float
    action: Action

    @property
    def allowed(self) -> float:
        return round(self.limit * self.of, 6) if self.limit < 1 else self.limit

    @property
    def state(self) -> str:
        """`ok`, or the action if the limit is exceeded."""
        return self.action if self.found > self.allowed else "ok"

    @property
    def text(self) -> str:
        share = f" ({self.found / self.of:.1%})" if self.of else ""
        return f"{self.found:,} of {self.of:,} {self.what}{share}"

    @property
    def bound(self) -> str:
        """The limit in words; for a share also the largest number that is allowed."""
        return f"{self.limit:g}" + (f" = {math.floor(self.allowed):,}" if 0 < self.limit < 1 else "")

    def facts(self) -> dict[str, Any]:
        """For audit.json."""
        return {"found": self.found, "of": self.of, "limit": self.limit, "action": self.action, "state": self.state}


def warnings(verdicts: Sequence[Verdict]) -> list[str]:
    """A line for each limit that is exceeded and not ignored."""
    return [
        f"audit: {one.text}; `audit.max_{one.name}` is {one.bound}" for one in verdicts if one.state in ("warn", "fail")
    ]


def failure(verdicts: Sequence[Verdict], page: str) -> DataError | None:
    """The error if a limit with the action `fail` is exceeded, otherwise None."""
    failed = [one for one in verdicts if one.state == "fail"]
    if not failed:
        return None
    keys = ", ".join(f"`audit.max_{one.name}`" for one in failed)
    switches = ", ".join(f"`audit.on_{one.name}: warn`" for one in failed)
    return DataError(
        f"the audit found more problems in the data than {keys} allows",
        got="; ".join(one.text for one in failed),
        allowed="; ".join(f"{one.name} {one.bound}" for one in failed),
        todo=f"see {page}; fix labels or images, raise the limit, or set {switches}",
    )
