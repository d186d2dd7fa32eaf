"""The ledger: every promotion, refusal and rollback of a registered model, in order, and who, when and why.

An entry is kept twice: as a line of ledger.jsonl, which is versioned with the repository, and as a tag of the model's
version in MLflow. A run that crashes between the two loses nothing: `reconcile` copies missing entries both ways.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mlflow.entities.model_registry import ModelVersion

from graft.tasks.common.core.errors import GraftError
from graft.tasks.common.core.files import digest as short_digest
from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.progress import say
from graft.tasks.common.data.task import METRICS
from graft.tasks.preprocess.label_history import given_since, read_answers

from ..runtime.turns import turn
from ..tracking.pages import all_pages
from ..tracking.tracker import Tracker
from ..versioning.dvc import shared_state
from . import integrity
from .looks import Tested

FILE = "ledger.jsonl"

TAG = "graft.ledger."
"""Prefix of the tag of a version that holds an entry; the entry's id follows."""

LONGEST = 5000
"""Maximum length of a tag in MLflow; an entry's reason is cut to fit."""

WAIT = 300.0
"""Seconds to wait for another decision about the same model; one takes a few."""

What = Literal["first", "promoted", "waits", "undecided", "refused", "rolled_back", "by_hand"]

CHAMPIONS: tuple[What, ...] = ("first", "promoted", "rolled_back", "by_hand")
"""The decisions that make a version the champion."""


@dataclass(frozen=True)
class Entry:
    """A decision about a version.

    Attributes:
        id: of this entry.
        number: its position among the entries of the model. It gives the order, because clocks differ.
        at: when, ISO 8601 in UTC.
        what: `first` (there was no champion), `promoted`, `waits` (it has passed the gate), `undecided` (too few test
            images to tell), `refused`, `rolled_back` (to this version), or `by_hand`: the alias was moved by something
            other than Graft.
        previous: the version of the previous champion; empty if there was none.
        by: a person, or the flow, and the machine.
        metrics: of the test, of the challenger and (`champion_...`) of the champion on the same images; of a version
            that no gate has judged, the main metric that it was registered with.
        git_commit, data_hash, run_id: the commit, images and run that produced the version.
        flow_run_url: the page of the run that judged the version; empty if none has.
        digest: of the model's files (flows/registry/integrity.py), by which they are checked before they are loaded.
        labels: the number of answers in data/labels.csv since the last champion.
        test_images, test_sample: the test images that the gate judged it on, see flows/registry/looks.py.
    """

    id: str
    at: str
    what: What
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
    digest: str = ""
    number: int = 0
    test_images: int = 0
    test_sample: list[str] = field(default_factory=list)
    labels: int = 0

    def key(self) -> integrity.Key:
        return self.model, self.version, self.run_id

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


_FIELDS = {each.name for each in fields(Entry)}


def new_entry(
    tracker: Tracker,
    version: ModelVersion,
    what: What,
    previous: str,
    why: str,
    metrics: dict[str, float] | None = None,
    flow_run_url: str = "",
    tested: Tested | None = None,
) -> Entry:
    """A new entry about a version, dated now; what it is not given it takes from the last entry of the gate's."""
    now, tested, known = datetime.now(UTC), tested or Tested(), entries(tracker, version.name)
    judged = decided([entry for entry in known if entry.flow_run_url], str(version.version))
    return Entry(
        id=f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}",
        at=now.isoformat(timespec="milliseconds"),
        what=what,
        model=version.name,
        version=str(version.version),
        previous=previous,
        by=f"{'the flow retrain' if flow_run_url else _user()} on {socket.gethostname()}",
        why=why,
        metrics=metrics or (judged.metrics if judged else {}) or _test_metric(version),
        git_commit=version.tags.get("git.commit", ""),
        data_hash=version.tags.get("dvc.raw", ""),
        run_id=version.run_id or "",
        flow_run_url=flow_run_url or (judged.flow_run_url if judged else ""),
        digest=digest_of(tracker.paths.root, (version.name, str(version.version), version.run_id or "")),
        number=max((entry.number for entry in known), default=0) + 1,
        test_images=tested.images,
        test_sample=tested.sample,
        labels=len(given_since(read_answers(tracker.paths.labels), _last_champion(known))),
    )


def _last_champion(known: Sequence[Entry]) -> str:
    """When the last champion became it; empty if there was none."""
    return next((entry.at for entry in reversed(known) if entry.what in CHAMPIONS), "")


def _test_metric(version: ModelVersion) -> dict[str, float]:
    """The main metric of a version, by its tags."""
    known = {name: one.key for metrics in METRICS.values() for one in metrics for name in [f"test_{one.key}"]}
    return {key: float(version.tags[name]) for name, key in known.items() if name in version.tags}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def locked(tracker: Tracker, name: str) -> AbstractContextManager[None]:
    """One decision at a time about a model of a store, in all worktrees of this repository: aliases and ledger change
    together. May be entered again in the same thread.

    Raises:
        TransientError: another decision takes too long.
    """
    file = shared_state(tracker.paths.root).resolve() / f"{short_digest(f'{tracker.uri} {name}'.encode())}.lock"
    return turn(file, f"another promotion, rollback or registration of `{name}`", WAIT, say)


def enter(tracker: Tracker, entry: Entry) -> None:
    """Writes an entry to MLflow; `reconcile` copies it to the file."""
    tracker.client.set_model_version_tag(entry.model, entry.version, TAG + entry.id, shortened(entry).line())


def shortened(entry: Entry) -> Entry:
    """The entry, cut to fit into a tag of MLflow."""
    while len(entry.line()) > LONGEST:
        entry = replace(entry, why=entry.why[: len(entry.why) // 2] + " ...", metrics={})
    return entry


def withdraw(tracker: Tracker, entry: Entry) -> None:
    """Removes the entry of a change that did not happen from MLflow."""
    tracker.client.delete_model_version_tag(entry.model, entry.version, TAG + entry.id)


def entries(tracker: Tracker, name: str) -> list[Entry]:
    """All entries of a registered model, of the project's file and of MLflow, oldest first."""
    return _in_order([*_recorded(tracker, name), *read(tracker.paths.root, name)])


def reconcile(tracker: Tracker, name: str) -> list[Entry]:
    """Copies entries that only MLflow has to the file, and the file's entries of existing versions to MLflow; returns
    all of them."""
    root = tracker.paths.root
    ours, theirs = read(root), _recorded(tracker, name)
    digests = integrity.at_hand(root)
    whole = [
        entry if entry.digest else replace(entry, digest=digests.get(entry.key(), ""))
        for entry in _in_order([*theirs, *ours])
    ]
    place = {entry.id: position for position, entry in enumerate(ours)}
    lines = sorted(whole, key=lambda entry: place.get(entry.id, len(place)))  # what is there keeps its line
    if lines != ours:
        write(root, lines)
    known = {entry.id for entry in theirs}
    there = {str(version.version): version.run_id for version in _versions(tracker, name)}
    for entry in ours:
        # Another store counts its own versions.
        if entry.model == name and entry.id not in known and there.get(entry.version, "") == entry.run_id:
            enter(tracker, entry)
    return [entry for entry in whole if entry.model == name]


def digest_of(root: Path, key: integrity.Key) -> str:
    """The digest of a version's files from outside MLflow; empty if none is known.

    Raises:
        GraftError: a line of the file is not an entry.
    """
    kept = {entry.key(): entry.digest for entry in read(root) if entry.digest}
    return kept.get(key) or integrity.at_hand(root).get(key) or integrity.in_history(root, key)


def champion_of(kept: Sequence[Entry]) -> str:
    """The version that is champion by the ledger; empty if none ever was."""
    return next((entry.version for entry in reversed(kept) if entry.what in CHAMPIONS), "")


def decided(kept: Iterable[Entry], version: str) -> Entry | None:
    """The last decision about a version."""
    found = None
    for entry in kept:
        if entry.version == version:
            found = entry
    return found


def before(kept: Sequence[Entry], version: str) -> str:
    """The champion that this version replaced; empty if there was none. A rollback does not count."""
    for entry in reversed(kept):
        if entry.version == version and entry.what in ("first", "promoted", "by_hand"):
            return entry.previous
    return ""


def read(root: Path, name: str | None = None) -> list[Entry]:
    """The file's entries, of one model or of all.

    Raises:
        GraftError: a line is not an entry.
    """
    file = root / FILE
    if not file.is_file():
        return []
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            found.append(parse(line, f"{FILE}, line {number}"))
    return [entry for entry in found if name is None or entry.model == name]


def write(root: Path, kept: Iterable[Entry]) -> None:
    with whole_file(root / FILE) as part:
        part.write_text("".join(f"{entry.line()}\n" for entry in kept), encoding="utf-8")


def _recorded(tracker: Tracker, name: str) -> list[Entry]:
    """The entries in MLflow, without digests: those must not come from where the models can be replaced."""
    return [
        replace(parse(text, f"tag {key} of version {version.version} of `{name}` in MLflow"), digest="")
        for version in _versions(tracker, name)
        for key, text in version.tags.items()
        if key.startswith(TAG)
    ]


def _versions(tracker: Tracker, name: str) -> list[ModelVersion]:
    return list(all_pages(tracker.client.search_model_versions, f"name = '{name}'"))


def _in_order(kept: Iterable[Entry]) -> list[Entry]:
    """Of duplicates the last counts: MLflow's, which come first, may be cut, and others may write there."""
    by_id = {entry.id: entry for entry in kept}
    return sorted(by_id.values(), key=lambda entry: (entry.number, entry.at, entry.id))


def parse(line: str, where: str) -> Entry:
    """Raises:
    GraftError: it is not an entry.
    """
    try:
        content = json.loads(line)
        return Entry(**{key: value for key, value in content.items() if key in _FIELDS})
    except (ValueError, TypeError, AttributeError) as error:
        raise GraftError(
            f"{where} is not an entry of the ledger",
            got=line[:200],
            allowed="one JSON object a line, as Graft writes them",
            todo="delete the line; if MLflow has the entry, it is restored from there",
        ) from error
