"""The label loop in an unattended run: new images without a label, labels that people gave by day, and whom to ask."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.common.core.files import whole_file
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.words import NAMED
from graft.tasks.preprocess.label_history import read_answers, standings
from graft.tasks.preprocess.scan import hidden
from graft.tasks.preprocess.walk import walk

from ..ingest.inbox import fetch_images, known_images
from ..ingest.inbox_files import UNLABELLED, digests, unsettled
from ..versioning.dvc import dvc, fetch_object, is_cached, listing_of, raw_hash, tracked_file
from ..versioning.dvc_config import dvc_remote
from .current import read_labels_now
from .pool import INDEX, TRACKED, Added, File, add_files, fetch_pool
from .take_over import take_over_labelled

if TYPE_CHECKING:
    from .choice import Asked

TABLE = "label/next.csv"
"""The images to ask about, below .graft of the project."""


@dataclass(frozen=True)
class Brought:
    """What changed in the pool.

    Attributes:
        new: images that came without a label.
        labelled: images of the pool that have a label now, and were imported into data/raw.
        refused: file of the inbox -> why it is no usable image.
        waiting: file of the inbox -> why it is left for a later run.
        changed: whether data/pool.dvc is another one.
    """

    new: int = 0
    labelled: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    changed: bool = False

    def words(self) -> str:
        """What people read: empty if nothing is to be told."""
        told = [f"{self.new:,} images without a label came"] if self.new else []
        told += [f"{self.labelled:,} were labelled by people"] if self.labelled else []
        for what, files in (("refused", self.refused), ("waiting", self.waiting)):
            named = [f"{name} ({why})" for name, why in list(files.items())[:NAMED]]
            named += [f"and {len(files) - NAMED:,} more"] if len(files) > NAMED else []
            told += [f"{len(files):,} {what}: {'; '.join(named)}"] if files else []
        return f"pool: {', '.join(told)}" if told else ""


def bring_pool(root: Path, inbox: Path | None, settle_seconds: float) -> Brought:
    """Adds the inbox's images without a label to the pool, and imports those that got one.

    A second call after a failure does the same again: it starts from data/pool.dvc and data/raw.dvc as they are.

    Args:
        root: of the working copy, which nobody else works in: what DVC does not track there is replaced.
        inbox: the folder that people and machines drop files into; its folder `unlabelled` is taken.
        settle_seconds: a file that changed more recently waits.

    Raises:
        GraftError: the images cannot be fetched, copied or imported.
    """
    known, waiting = _pool_hashes(root), dict[str, str]()
    files = _unknown(root, inbox / UNLABELLED, settle_seconds, known, waiting) if inbox is not None else []
    labelled = _labelled(root, known)
    if labelled and _follows_a_place(root):
        waiting[f"{len(labelled):,} labelled images"] = "data/raw follows another place: add them there"
        labelled = []
    if not files and not labelled:
        return Brought(waiting=waiting)
    before = raw_hash(root, TRACKED)
    _check_out(root)
    added = add_files(root, files) if files else Added()
    taken = 0 if _follows_a_place(root) else take_over_labelled(root)
    return Brought(added.new, taken, added.refused, waiting, raw_hash(root, TRACKED) != before)


def _pool_hashes(root: Path) -> set[str]:
    """The images of the pool as data/pool.dvc has it."""
    digest = raw_hash(root, TRACKED)
    if digest and dvc_remote(root) and not is_cached(root, digest):
        fetch_object(root, digest, "the images without a label")
    return {digest for name, digest in (listing_of(root, digest) or {}).items() if name != INDEX}


def _unknown(root: Path, folder: Path, settle_seconds: float, pool: set[str], waiting: dict[str, str]) -> list[File]:
    """The complete files of the folder that are neither in the pool nor in data/raw."""
    if not folder.is_dir():
        return []
    folder = Path(os.path.realpath(folder))
    listing = walk(folder)
    waiting |= listing.missed()
    waiting |= dict(unsettled(listing, settle_seconds))
    names = [name for name in listing.files if not hidden(name) and name not in waiting]
    found = digests(folder, listing, names, Paths(root).cache / "unlabelled.json", waiting)
    known = pool | set(known_images(root).values())
    return [File(name, listing.files[name], "", "inbox") for name, digest in found.items() if digest not in known]


def _labelled(root: Path, pool: set[str]) -> list[str]:
    standing = standings(read_answers(Paths(root).labels))
    return [image_id for image_id in pool if image_id in standing and standing[image_id].label is not None]


def _follows_a_place(root: Path) -> bool:
    """Whether data/raw comes from `dvc import-url`: what is added here would be lost at the next update."""
    return "deps" in tracked_file(root / "data" / "raw.dvc")


def _check_out(root: Path) -> None:
    """Brings data/raw and data/pool to what their files of DVC say, whatever a killed run has left there."""
    fetch_images(root, "--force")
    if (root / TRACKED).is_file():
        fetch_pool(root, "--force")
    else:
        shutil.rmtree(Paths(root).pool, ignore_errors=True)


def choose_to_ask(root: Path, project: Path, number: int) -> Asked | None:
    """The images whose labels would help most, written to `TABLE` of the project; None if the pool has none left.

    Raises:
        GraftError: they cannot be chosen.
    """
    if not (root / TRACKED).is_file() or not len(read_labels_now(root).waiting):
        return None
    from .choice import next_images  # it loads scikit-learn, which few runs need

    asked = next_images(root, number)
    if not len(asked.table):  # what is left are near-copies of images that were answered
        return None
    with whole_file(Paths(project).state / TABLE) as part:
        asked.table.to_csv(part, index=False)
    return asked


def fetch_results(root: Path) -> None:
    """Checks out the results of the last run, by which images are chosen; nothing before the first one."""
    if (root / "dvc.lock").is_file():
        verb = "pull" if dvc_remote(root) else "checkout"
        names = ["data/raw.dvc", "preprocess", "features", "head"]
        dvc(root, [verb, "--quiet", "--force", *names], "fetching the results of the last run")


def rows_of(asked: Asked) -> list[dict[str, Any]]:
    """The images, for a page."""
    table = asked.table.drop(columns="label").astype(object)
    return list(table.where(table.notna(), "").to_dict("records"))


def request(asked: Asked, page: str) -> tuple[str, str]:
    """Title and text of the notification that asks people for labels."""
    count = len(asked.table)
    title = f"{count:,} pictures would help most"
    at_random = int((asked.table["why"] == "random").sum())
    where = page or "`git pull` and `graft label --commit`, in the project"
    return title, (
        f"Of {asked.waiting:,} images without a label, {count - at_random:,} were chosen ({asked.strategy}) and "
        f"{at_random:,} drawn at random. Label them: {where}"
    )
