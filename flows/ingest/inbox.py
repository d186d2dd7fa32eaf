"""Imports new images from a folder into which people and machines drop files. A file is imported when it is complete,
and is neither moved nor deleted. Files that cannot be imported are named, and do not block the others."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.words import listed
from graft.tasks.common.images.shards import is_stored
from graft.tasks.common.images.unreadable import Refused
from graft.tasks.preprocess.check import look
from graft.tasks.preprocess.layouts import SPLIT_NAMES, layout_of, may_be_image
from graft.tasks.preprocess.mask_names import Masks
from graft.tasks.preprocess.scan import TABLE, hidden
from graft.tasks.preprocess.tables import parse_table, spellings
from graft.tasks.preprocess.walk import Listing, copy_regular, open_regular, walk

from ..runtime.params import load_params
from ..versioning.dvc import dvc, fetch_object, is_cached, raw_hash, raw_listing
from ..versioning.dvc_config import dvc_remote
from .archives import is_archive
from .importing import import_images
from .inbox_files import UNLABELLED, digests, unsettled
from .inbox_masks import apart, masks_of, place_of_mask, with_places
from .joining import holds_images

NAMED = 5
"""How many waiting files a message names."""

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the project's disk rather than of one file."""


@dataclass(frozen=True)
class Taken:
    """The result of looking into the inbox.

    Attributes:
        new: number of files that were imported.
        known: number of files that are already in the project, under any name.
        waiting: file -> why it is left for a later run.
    """

    new: int
    known: int
    waiting: dict[str, str]

    def words(self) -> str:
        counts = f"inbox: {self.new:,} new files imported, {self.known:,} known already, {len(self.waiting):,} waiting"
        named = [f"{name} ({why})" for name, why in list(self.waiting.items())[:NAMED]]
        if len(self.waiting) > NAMED:
            named.append(f"and {len(self.waiting) - NAMED:,} more")
        return f"{counts}: {'; '.join(named)}" if named else counts


def take_over(inbox: Path, root: Path, settle_seconds: float) -> Taken:
    """Copies new, complete files into data/raw and puts them under DVC.

    Raises:
        DataError: the inbox is not a folder.
        GraftError: the images cannot be copied or put under DVC.
    """
    if not inbox.is_dir():
        raise DataError(
            "params.yaml: retrain.inbox is not a folder",
            got=inbox,
            allowed="a folder with a layout that `graft import` accepts",
            todo="create it, or mount its disk",
        )
    inbox = Path(os.path.realpath(inbox))
    listing, raw = _with_labels(walk(inbox)), known_images(root)
    waiting = listing.missed()
    waiting |= dict(unsettled(listing, settle_seconds))
    if TABLE in waiting:
        return Taken(0, 0, waiting)
    try:
        table = _rows(inbox, listing)
    except DataError as error:
        return Taken(0, 0, {**waiting, TABLE: _in_a_line(error)})
    files = [name for name in listing.files if not hidden(name) and name != TABLE]
    masks = masks_of(files, table, load_params(Paths(root).params).head.task)
    waiting |= masks.left
    waiting |= dict(_misplaced([name for name in files if name not in masks.names], table, list(raw)))
    whole = [name for name in files if name not in waiting]
    hashed = digests(inbox, listing, whole, Paths(root).cache / "inbox.json", waiting)
    known, new = _sorted_out(hashed, set(raw.values()), masks, waiting)
    if not new:
        return Taken(0, known, waiting)
    return Taken(_bring(inbox, listing, root, new, table, masks, waiting), known, waiting)


def _sorted_out(
    hashed: dict[str, str], has: set[str], masks: Masks, waiting: dict[str, str]
) -> tuple[int, dict[str, str]]:
    """(how many images are in the project already, the others and their masks with their md5).

    Args:
        has: the md5 of every file in data/raw.
    """
    known = {name for name, digest in hashed.items() if digest in has and name not in masks.names}
    apart_now = dict(apart(masks, set(hashed), known))
    waiting |= {name: why for name, why in apart_now.items() if hashed.get(name) not in has}
    new = {name: digest for name, digest in hashed.items() if name not in known and name not in apart_now}
    return len(known), new


def _with_labels(listing: Listing) -> Listing:
    """Without the folder of those that have none."""
    files = {name: file for name, file in listing.files.items() if not name.startswith(f"{UNLABELLED}/")}
    left_out = {name: why for name, why in listing.left_out.items() if not f"{name}/".startswith(f"{UNLABELLED}/")}
    return replace(listing, files=files, left_out=left_out)


def known_images(root: Path) -> dict[str, str]:
    """Path below data/raw -> md5; of all that data/raw.dvc lists, whether the images are there or not."""
    digest = raw_hash(root)
    if digest and dvc_remote(root) and not is_cached(root, digest):
        fetch_object(root, digest, "the known images")
    return raw_listing(root)


def _in_a_line(error: GraftError) -> str:
    return error.what if error.got is None else f"{error.what}: {error.got}"


def _misplaced(files: list[str], table: pd.DataFrame | None, raw: list[str]) -> Iterator[tuple[str, str]]:
    """Files that do not fit the layout of data/raw, or of the inbox if data/raw is empty."""
    form = _form(raw)
    if table is not None and form not in ("", "table"):
        yield from ((name, f"the inbox has {TABLE}, but data/raw has one folder per class") for name in files)
    elif table is not None:
        rows = set(table["path"])
        yield from ((name, f"{TABLE} has no row for it") for name in files if name not in rows)
    elif form == "table":
        yield from ((name, f"data/raw has a table, and the inbox has no {TABLE}") for name in files)
    else:
        yield from _not_in_a_class(files, form or _form(files), {name.partition("/")[0].lower() for name in raw})


def _not_in_a_class(files: list[str], form: str, tops: set[str]) -> Iterator[tuple[str, str]]:
    """`tops`: the folders of data/raw, in small letters."""
    around = "" if tops else layout_of(files).wrapper
    for name in files:
        parts = name.split("/")
        split = parts[0].lower() in SPLIT_NAMES
        if not may_be_image(name):
            yield name, "it is an archive: unpack it" if is_archive(Path(name)) else "it is not an image, by its suffix"
        elif _is_around(parts, tops) or (around and name.startswith(f"{around}/")):
            yield name, f"{around or parts[0]}/ is a folder around classes: move these to the top of the inbox"
        elif form == "splits" and (len(parts) < 3 or not split):
            yield name, "it is not in train/, val/ or test/ with one folder per class"
        elif len(parts) < 2:
            yield name, "it is not in a folder of a class"
        elif form != "splits" and split and parts[0].lower() not in tops:
            yield name, f"{parts[0]}/ is the name of a split, among folders of classes"


def _is_around(parts: list[str], tops: set[str]) -> bool:
    """Whether a file is in a folder of data/raw that is within a new one, which is not a split."""
    above = [part.lower() for part in parts[:-1]]
    return len(above) > 1 and above[1] in tops and above[0] not in {*tops, *SPLIT_NAMES}


def _form(names: list[str]) -> str:
    """`table`, `splits` or `classes`; empty if there are no images."""
    if TABLE in names:
        return "table"
    layout = layout_of(names, unwrap=False)
    return "splits" if layout.form == "splits" else "classes" if layout.tops else ""


def _incomplete(fault: str) -> bool:
    """Files with other faults are imported: the stage `preprocess` names and rejects them."""
    return fault == "empty file" or fault.startswith("damaged")


def _bring(
    inbox: Path,
    listing: Listing,
    root: Path,
    new: dict[str, str],
    table: pd.DataFrame | None,
    masks: Masks,
    waiting: dict[str, str],
) -> int:
    """Imports the new files and returns how many images they are. They go through a folder of their own, so that
    `graft import` sees only new files, under free names."""
    staged = Paths(root).tmp / "inbox"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        faults = {name: _stage(listing.files[name], inbox, staged / name, digest) for name, digest in new.items()}
        waiting |= {name: fault for name, fault in faults.items() if fault}
        sound = {name for name, fault in faults.items() if not fault}
        torn = {name: why for name, why in apart(masks, sound, set()) if name in sound}
        waiting |= torn
        whole = {name: new[name] for name in new if name in sound and name not in torn}
        for name in torn:
            (staged / name).unlink()
        refusal = _import_staged(staged, root, whole, table, masks) if whole else ""
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if refusal:
        waiting |= dict.fromkeys(whole, refusal.replace(str(staged), "the inbox"))
    return 0 if refusal else sum(name not in masks.names for name in whole)


def _import_staged(staged: Path, root: Path, whole: dict[str, str], table: pd.DataFrame | None, masks: Masks) -> str:
    """Why `graft import` refuses the images; empty if it does not."""
    fetch_images(root)
    _rename(staged, root, whole, table, masks)
    raw = Paths(root).raw
    try:
        import_images(staged, root, "add" if holds_images(raw) else "new", unwrap=False)
    except DataError as error:
        return _in_a_line(error)
    return ""


def _fault(place: Path) -> str:
    try:
        return look(place).fault
    except Refused as error:
        return str(error)


def _stage(file: Path, inbox: Path, place: Path, digest: str) -> str:
    """Copies a file and checks the copy, which nothing else changes. Returns why the file has to wait, or nothing.

    Raises:
        GraftError: the copy cannot be written.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy_regular(file, inbox, place)
        fault = _fault(place)
    except DataError as error:
        return f"it cannot be read: {error.got}"
    except OSError as error:
        if error.errno in DISK:
            raise GraftError(
                "the images of the inbox could not be copied", got=error.strerror, todo="free some space on the disk"
            ) from error
        return f"it cannot be read: {error.strerror}"
    if not _incomplete(fault) and md5(place) == digest:
        return ""
    place.unlink()
    return f"incomplete: {fault}" if _incomplete(fault) else "it changed while it was being read"


def fetch_images(root: Path, *more: str) -> None:
    """Checks data/raw out, from the remote if there is one."""
    if (root / "data" / "raw.dvc").is_file():
        verb = "pull" if dvc_remote(root) else "checkout"
        dvc(root, [verb, "--quiet", *more, "data/raw.dvc"], "restoring the images that new ones are added to")


def _rename(staged: Path, root: Path, whole: dict[str, str], table: pd.DataFrame | None, masks: Masks) -> None:
    """Gives the files names that are free in data/raw, and writes the table with their rows."""
    place_of = _free_place(Paths(root).raw, whole, table is not None)
    places = {name: place_of(name, digest) for name, digest in whole.items()}
    if table is None:
        layout = layout_of(whole, unwrap=False)
        pairs = ((image, mask) for image, mask in masks.of.items() if mask in whole)
        places |= {mask: place_of_mask(mask, image, places[image], layout) for image, mask in pairs}
    for name, place in places.items():
        (staged / place).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).rename(staged / place)
    if table is not None:
        rows = table[table["path"].isin(set(places))]
        with_places(rows, places, masks).to_csv(staged / TABLE, index=False)


def _free_place(raw: Path, names: Collection[str], listed: bool) -> Callable[[str, str], str]:
    """The name as an import would write it, or with digits of its hash if another file has this name already."""
    layout, used = layout_of(names, unwrap=False), {*names}  # a name that is tidied must not be that of another file

    def place(name: str, digest: str) -> str:
        path = PurePosixPath(name if listed else layout.place(name) or name)
        taken = raw / "images" / path if listed else raw / path
        if is_stored(taken) or (str(path) != name and str(path) in used):
            path = path.with_name(f"{path.stem}-{digest[:8]}{path.suffix}")
        used.add(str(path))
        return str(path)

    return place


def _rows(inbox: Path, listing: Listing) -> pd.DataFrame | None:
    """The inbox's table, with normalised paths; None if there is none.

    Raises:
        DataError: it cannot be read, or has no column `path`.
    """
    if TABLE not in listing.files:
        return None
    try:
        with open_regular(listing.files[TABLE], inbox) as file:
            table = parse_table(file.read(), Path(TABLE)).rows
    except OSError as error:
        raise DataError("it cannot be read as a table", got=error.strerror) from error
    if "path" not in table:
        got = listed(table.columns)
        raise DataError("it has no column `path`", got=got, todo="rename or add the column")
    return table.assign(path=[_spelling(path, listing) for path in table["path"]])


def _spelling(path: str, listing: Listing) -> str:
    """The name of the file that a row means; if there is none, the likeliest one."""
    variants = spellings(path) or [""]
    return next((name for name in variants if name in listing.files), variants[0])
