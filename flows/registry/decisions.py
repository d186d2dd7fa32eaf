"""`graft promote`, `graft rollback` and `graft ledger`: a person's decisions about the champion."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.errors import GraftError

from ..runtime.params import model_name
from ..tracking.store import has_store
from ..tracking.tracker import Tracker
from . import ledger, promotion
from .ledger import Entry
from .models import CHAMPION, aliases_of, fetched_model, find_version

BY_HAND = "decided by hand"


def promote_version(root: Path, wanted: str, why: str, *, anyway: bool, unverified: bool = False) -> dict[str, Any]:
    """Makes a version the champion; returns the entry of the ledger.

    Args:
        anyway: even if the gate has refused it, or has not judged it.
        unverified: even if no digest outside MLflow is known for its files.

    Raises:
        GraftError: there is no such version, it is the champion, it cannot be used, or the gate has refused it or has
            not judged it.
    """
    tracker, name = _registry(root)
    tracker.require_writable()
    with ledger.locked(tracker, name):
        kept = promotion.settle(tracker, name)
        version = find_version(tracker, name, wanted)
        if not anyway:
            _require_judged(version, kept)
        if unverified and aliases_of(tracker, name).get(CHAMPION) == str(version.version):
            return asdict(_vouched(tracker, version))
        entry = promotion.promote(tracker, version, why or BY_HAND, unverified=unverified)
        ledger.reconcile(tracker, name)
    return asdict(entry)


def _require_judged(version: ModelVersion, kept: list[Entry]) -> None:
    """The gate must have judged a version that has never been champion, and must not have refused it."""
    said, number = version.tags.get(promotion.GATE, ""), str(version.version)
    if said.startswith("refused"):
        raise GraftError(
            f"the gate has refused version {number} of `{version.name}`",
            got=said.removeprefix("refused: "),
            todo="choose another version, or promote it nevertheless with --anyway and give the reason with --why",
        )
    champions = {entry.version for entry in kept if entry.what in ledger.CHAMPIONS}
    if not said and number not in champions:
        raise GraftError(
            f"the gate has not judged version {number} of `{version.name}`",
            got="a version that only `graft repro` or `dvc repro` has made",
            todo="`graft run` compares the newest version with the champion; or promote it nevertheless with --anyway "
            "and give the reason with --why",
        )


def _vouched(tracker: Tracker, version: ModelVersion) -> Entry:
    """The entry of the champion, whose digest is from now on that of the files in MLflow."""
    with fetched_model(tracker, version, unverified=True):
        kept = ledger.reconcile(tracker, version.name)
    entry = ledger.decided(kept, str(version.version))
    assert entry is not None, "`settle` has written one"
    return entry


def roll_back_champion(root: Path, why: str) -> dict[str, Any]:
    """Makes the previous champion the champion again; returns the entry of the ledger.

    Raises:
        GraftError: there is none, or it cannot be used.
    """
    tracker, name = _registry(root)
    tracker.require_writable()
    with ledger.locked(tracker, name):
        promotion.settle(tracker, name)
        entry = promotion.roll_back(tracker, name, why or BY_HAND)
        ledger.reconcile(tracker, name)
    return asdict(entry)


def kept_ledger(root: Path) -> list[dict[str, Any]]:
    """All entries, oldest first."""
    tracker, name = _registry(root)
    return [asdict(entry) for entry in ledger.entries(tracker, name)]


def _registry(root: Path) -> tuple[Tracker, str]:
    if not has_store(root):
        raise GraftError("no model is registered in this project", todo="run `graft repro`, which registers the first")
    return Tracker(root), model_name(root)
