"""Which version of a registered model is champion: promoted, rolled back, and never left half changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from graft.tasks.common.core.errors import GraftError

from ..tracking.tracker import Tracker
from . import ledger
from .ledger import Entry
from .looks import Tested
from .models import CHALLENGER, CHAMPION, PREVIOUS, aliases_of, fetched_model, find_version, in_store, try_out

PENDING = "graft.pending"
"""The tag of a registered model while its aliases change: what they were, and the entry of the ledger."""

RESTORE = "restore its files, or name another version; no alias has been moved"
"""What to do about a version that cannot be used."""

GATE = "graft.gate"
"""The tag of a version with the gate's verdict: `passed`, `undecided` or `refused`, a colon, and the reason."""


def promote(
    tracker: Tracker,
    version: ModelVersion,
    why: str,
    *,
    metrics: Mapping[str, float] | None = None,
    flow_run_url: str = "",
    tested: Tested | None = None,
    unverified: bool = False,
) -> Entry:
    """Makes a version the champion and the champion the previous one, and writes it to the ledger. Call it within
    `ledger.locked`, like everything that moves an alias or writes an entry.

    Args:
        tested: the test images that the gate judged it on.
        unverified: accept a version without a known digest, and keep the digest of what MLflow has.

    Raises:
        GraftError: the version is the champion, or cannot be used; nothing has changed then.
    """
    recover(tracker, version.name)
    before, number = aliases_of(tracker, version.name), str(version.version)
    champion = before.get(CHAMPION, "")
    if champion == number:
        raise GraftError(
            f"version {number} of `{version.name}` is the champion already",
            todo=_instead(before, number),
        )
    what: ledger.What = "promoted" if champion else "first"
    after = {**before, CHAMPION: number, **({PREVIOUS: champion} if champion else {})}
    with fetched_model(tracker, version, unverified=unverified) as model:
        entry = ledger.new_entry(tracker, version, what, champion, why, dict(metrics or {}), flow_run_url, tested)
        _change(tracker, entry, before, after, model)
    return entry


def _instead(aliases: Mapping[str, str], champion: str) -> str:
    """What the user may have meant by promoting the champion."""
    if aliases.get(CHALLENGER, champion) != champion:
        return f"graft promote challenger, which is version {aliases[CHALLENGER]}"
    if PREVIOUS in aliases:
        return f"graft rollback for version {aliases[PREVIOUS]}, or graft run for a new challenger"
    return "graft run for a new challenger"


def roll_back(tracker: Tracker, name: str, why: str) -> Entry:
    """Makes the previous champion the champion again.

    Raises:
        GraftError: there is none, or it cannot be used; nothing has changed then.
    """
    recover(tracker, name)
    before = aliases_of(tracker, name)
    champion, target = before.get(CHAMPION, ""), before.get(PREVIOUS, "")
    if not target:
        raise GraftError(
            f"`{name}` has no previous champion",
            got=f"aliases {', '.join(f'{alias} (version {number})' for alias, number in sorted(before.items()))}",
            todo="choose a version: graft promote VERSION",
        )
    version = find_version(tracker, name, target)
    entry = ledger.new_entry(tracker, version, "rolled_back", champion, why)
    earlier = ledger.before(ledger.entries(tracker, name), target)
    after = {alias: number for alias, number in before.items() if alias != PREVIOUS} | {CHAMPION: target}
    with fetched_model(tracker, version) as model:
        _change(tracker, entry, before, after | ({PREVIOUS: earlier} if earlier else {}), model)
    return entry


def leave(
    tracker: Tracker,
    version: ModelVersion,
    what: ledger.What,
    champion: str,
    why: str,
    metrics: Mapping[str, float],
    flow_run_url: str,
    tested: Tested | None = None,
) -> Entry:
    """Writes to the ledger that the gate has judged a version, which does not become the champion now."""
    entry = ledger.new_entry(tracker, version, what, champion, why, dict(metrics), flow_run_url, tested)
    ledger.enter(tracker, entry)
    return entry


def settle(tracker: Tracker, name: str) -> list[Entry]:
    """Undoes what a crashed run left half done, notes aliases that others moved, and returns the reconciled ledger."""
    recover(tracker, name)
    kept = ledger.reconcile(tracker, name)
    champion = aliases_of(tracker, name).get(CHAMPION, "")
    if champion and champion != ledger.champion_of(kept):
        version = find_version(tracker, name, champion)
        what = "by_hand" if kept else "first"
        why = "the alias was moved by something other than Graft" if kept else "the first version"
        entry = ledger.new_entry(tracker, version, what, ledger.champion_of(kept), why)  # type: ignore[arg-type]
        ledger.enter(tracker, entry)
        kept = ledger.reconcile(tracker, name)
    return kept


def recover(tracker: Tracker, name: str) -> bool:
    """Restores the aliases that a crashed run left half changed; whether there was anything to restore."""
    try:
        model = tracker.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    if PENDING not in model.tags:
        return False
    kept = json.loads(model.tags[PENDING])
    _restore(tracker, name, kept["aliases"], ledger.parse(kept["entry"], f"tag {PENDING} of `{name}`"))
    return True


def _change(tracker: Tracker, entry: Entry, before: Mapping[str, str], after: Mapping[str, str], model: Path) -> None:
    """Changes the aliases as a whole or not at all."""
    with in_store(tracker.uri):
        try_out(model, None, f"version {entry.version} of `{entry.model}`", RESTORE)
        with _all_or_nothing(tracker, entry, before):
            ledger.enter(tracker, entry)
            _set_aliases(tracker, entry.model, before, after)
            _check_alias(tracker, entry)


def _check_alias(tracker: Tracker, entry: Entry) -> None:
    """Checks that the champion which others load is the version that was tried out.

    Raises:
        GraftError: it is another version.
    """
    found = find_version(tracker, entry.model, CHAMPION)
    if (str(found.version), found.run_id or "") != (entry.version, entry.run_id):
        raise GraftError(
            f"the alias `{CHAMPION}` of `{entry.model}` does not lead to version {entry.version}",
            got=f"version {found.version}",
            todo="try again; every alias is as it was before",
        )


@contextmanager
def _all_or_nothing(tracker: Tracker, entry: Entry, before: Mapping[str, str]) -> Iterator[None]:
    note = json.dumps({"aliases": dict(before), "entry": ledger.shortened(entry).line()})
    tracker.client.set_registered_model_tag(entry.model, PENDING, note)
    try:
        yield
    except BaseException:
        _restore(tracker, entry.model, before, entry)
        raise
    tracker.client.delete_registered_model_tag(entry.model, PENDING)


def _restore(tracker: Tracker, name: str, aliases: Mapping[str, str], entry: Entry) -> None:
    _set_aliases(tracker, name, aliases_of(tracker, name), aliases)
    if ledger.TAG + entry.id in tracker.client.get_model_version(name, entry.version).tags:
        ledger.withdraw(tracker, entry)
    tracker.client.delete_registered_model_tag(name, PENDING)


def _set_aliases(tracker: Tracker, name: str, now: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Moves the aliases of promotion; the challenger belongs to the stage `register`."""
    for alias in (PREVIOUS, CHAMPION):
        if alias in wanted and now.get(alias) != wanted[alias]:
            tracker.client.set_registered_model_alias(name, alias, wanted[alias])
        elif alias in now and alias not in wanted:
            tracker.client.delete_registered_model_alias(name, alias)
