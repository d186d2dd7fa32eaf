"""The ledger: what was decided of a registered model's versions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from .tracking import Tracker

TAG = "graft.ledger."
"""Before an entry's id: the tag of a version that holds the entry."""


@dataclass(frozen=True)
class Entry:
    """What was decided of a version; `previous` is the champion's version before, empty if there was none."""

    id: str
    at: str
    what: Literal["first", "promoted", "refused", "rolled_back", "by_hand"]
    model: str
    version: str
    previous: str
    by: str
    why: str
    metrics: dict[str, float] = field(default_factory=dict)
    git_commit: str = ""
    data_hash: str = ""
    run_id: str = ""
    flow_run_url: str = ""


def entries(tracker: Tracker, name: str) -> list[Entry]:
    """All entries of a registered model, oldest first."""
    versions = tracker.client.search_model_versions(f"name = '{name}'")
    tags = [tag for version in versions for tag in version.tags.items()]
    found = [Entry(**json.loads(value)) for key, value in tags if key.startswith(TAG)]
    return sorted(found, key=lambda entry: (entry.at, entry.id))
