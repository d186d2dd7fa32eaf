"""Which images were added, removed or changed between two states of data/raw, by class, from DVC's listings."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from graft.tasks.common.data.task import Task, names_in
from graft.tasks.preprocess.layouts import MASK, ONE_CLASS, TABLE, WITH_MASKS, hidden, layout_of
from graft.tasks.preprocess.mask_names import masks_in

from ..versioning.dvc import cached_file, images_of

NAMED = 3
"""How many classes a sentence names."""


@dataclass(frozen=True)
class ImageChanges:
    """Files of data/raw that were added, removed or changed, in total and by class.

    An image has changed if its pixels, its label in the table or its mask have.

    Attributes:
        known: whether both listings were available; if not, only the fact that something changed is known.
    """

    added: int = 0
    removed: int = 0
    changed: int = 0
    added_by_class: dict[str, int] = field(default_factory=dict)
    removed_by_class: dict[str, int] = field(default_factory=dict)
    changed_by_class: dict[str, int] = field(default_factory=dict)
    known: bool = True

    def words(self) -> str:
        if not self.known:
            return "images changed (the number is unknown: a listing is not in DVC's cache)"
        parts = []
        if self.added:
            parts.append(f"+{_images(self.added)}{_by_class(self.added_by_class, self.added)}")
        if self.removed:
            parts.append(f"-{_images(self.removed)}{_by_class(self.removed_by_class, self.removed)}")
        if self.changed:
            parts.append(f"{_images(self.changed)} changed{_by_class(self.changed_by_class, self.changed)}")
        return ", ".join(parts) or "data/raw changed, but no image did"


UNKNOWN = ImageChanges(known=False)


def images_between(root: Path, before: str, now: str, task: Task = "classification") -> ImageChanges:
    """What differs between two states of data/raw, by their hashes; an empty hash means no images.

    Args:
        task: the kind of labels that a table has.
    """
    old, new = (images_of(root, digest) if digest else {} for digest in (before, now))
    return UNKNOWN if old is None or new is None else between(root, old, new, task)


def between(root: Path, old: Mapping[str, str], new: Mapping[str, str], task: Task = "classification") -> ImageChanges:
    """What differs between two listings (path -> md5)."""
    before, after = _stated(root, old, task), _stated(root, new, task)
    was, is_now = before.images(old), after.images(new)
    added = [name for name in is_now if name not in was]
    removed = [name for name in was if name not in is_now]
    changed = [name for name, state in is_now.items() if name in was and state != was[name]]
    return ImageChanges(
        len(added),
        len(removed),
        len(changed),
        _count(added, after.labels, _classes_in(new, task)),
        _count(removed, before.labels, _classes_in(old, task)),
        _count(changed, after.labels, _classes_in(new, task)),
    )


@dataclass(frozen=True)
class Stated:
    """What the names of files, or a table, say.

    Attributes:
        labels: path -> label.
        masks: path -> the mask of its defect.
        aside: masks, which are no images of their own.
    """

    labels: dict[str, str]
    masks: dict[str, str] = field(default_factory=dict)
    aside: frozenset[str] = frozenset()

    def images(self, listing: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        """Image -> its hash, its label and the hash of its mask: it has changed if one of them has."""
        return {
            name: (digest, self.labels.get(name, ""), listing.get(self.masks.get(name, ""), ""))
            for name, digest in listing.items()
            if name != TABLE and not hidden(name) and name not in self.aside
        }


def _stated(root: Path, listing: Mapping[str, str], task: Task) -> Stated:
    """From the table if there is one, otherwise from the names of the folders."""
    if TABLE in listing:
        text = _table(root, listing[TABLE])
        masks = _masks_of_table(text) if task in WITH_MASKS else {}
        return Stated(_labels_of_table(text), masks, frozenset(masks.values()))
    layout = layout_of(listing)
    masks_found = masks_in(listing, layout)
    labels = {name: label for name in listing if (label := layout.label(name))}
    return Stated(labels, masks_found.of, frozenset(masks_found.names))


def _table(root: Path, digest: str) -> str:
    """The text of a labels.csv: from DVC's cache, or from data/raw if DVC does not have it."""
    file = cached_file(root, digest) or root / "data" / "raw" / TABLE
    return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""


def _labels_of_table(text: str) -> dict[str, str]:
    rows = csv.reader(io.StringIO(text))
    names = next(rows, [])
    if "path" not in names:
        return {}
    path, columns = names.index("path"), [n for n, name in enumerate(names) if name in ("label", "target")]
    ones = [(n, name.removeprefix(ONE_CLASS)) for n, name in enumerate(names) if name.startswith(ONE_CLASS)]
    whole = [row for row in rows if len(row) == len(names)]
    if columns:
        return {row[path]: row[columns[0]] for row in whole}
    return {row[path]: "|".join(name for n, name in ones if row[n].lower() in ("1", "1.0", "true")) for row in whole}


def _masks_of_table(text: str) -> dict[str, str]:
    rows = csv.DictReader(io.StringIO(text))
    return {row["path"]: row[MASK] for row in rows if row.get("path") and row.get(MASK)}


def _count(names: Iterable[str], labels: Mapping[str, str], classes_in: Callable[[str], list[str]]) -> dict[str, int]:
    """Class -> number of images, the largest first."""
    found = Counter(one for name in names if name in labels for one in classes_in(labels[name]))
    return dict(found.most_common())


def _classes_in(listing: Mapping[str, str], task: Task) -> Callable[[str], list[str]]:
    """The classes in a label: none in a number; the name of a folder is one class for every task."""
    if TABLE not in listing or task in ("classification", "anomaly"):
        return lambda label: [label]
    return names_in if task == "multilabel" else lambda _: []


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _by_class(by_class: Mapping[str, int], total: int) -> str:
    """All classes if they are few, otherwise those with a tenth of the images or more."""
    if len(by_class) == 1 and total in by_class.values():
        return f" (class {next(iter(by_class))})"
    few = len(by_class) <= NAMED
    named = [(name, count) for name, count in by_class.items() if few or count >= total / 10][:NAMED]
    shown = ", ".join(f"{count:,} in class {name}" for name, count in named)
    return f" ({shown})" if shown else f" (in {len(by_class):,} classes)" if by_class else ""
