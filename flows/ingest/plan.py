"""The plan of an import: the layout of the source, the files to take and their places. Nothing is copied."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.data.task import Task
from graft.tasks.common.images.shards import shards_of
from graft.tasks.preprocess.image_table import read_table
from graft.tasks.preprocess.labels import refuse_folders
from graft.tasks.preprocess.layouts import (
    KNOWN,
    SPLIT_NAMES,
    TABLE,
    Layout,
    hidden,
    layout_of,
    may_be_image,
    refuse_masks,
    refuse_mixed,
)
from graft.tasks.preprocess.learnable import refuse_no_good
from graft.tasks.preprocess.mask_names import masks_in
from graft.tasks.preprocess.tables import SUFFIXES
from graft.tasks.preprocess.walk import Listing, refuse_what_was_missed, walk

from .exports import Below, Export, find_export, read_export, refuse_boxes
from .parquet_set import plan_parquet, tables_among
from .plan_table import plan_table, refuse_splits
from .plan_tars import plan_tars
from .planned import LOOSE, NO_IMAGE, NO_OWNER, NO_ROW, LeftOut, Plan
from .webdataset import tars_among


def plan_import(
    source: Path,
    task: Task = "classification",
    *,
    outside: bool = False,
    joining: bool = False,
    classes: Collection[str] = (),
    unwrap: bool = True,
) -> Plan:
    """Recognises the layout of `source`; `task` says what its labels are.

    Args:
        outside: also take files that links, or a table's rows, name outside the folder.
        joining: the images are added to others, so they need no split to train on and none to test on.
        classes: known classes; a folder named after one is no wrapper.
        unwrap: whether everything may lie in folders around the images.

    Raises:
        DataError: it does not exist, has no known layout, or holds files that cannot be imported.
    """
    if not source.exists():
        raise DataError(
            f"{source} does not exist",
            allowed="a folder of images, an archive of such a folder, or a CSV or Parquet table",
            todo="correct the path",
        )
    if source.is_file():
        return _plan_table_file(source, task, outside, joining)
    listing = _listing(source, outside)
    files = [file for file in listing.files if not hidden(file)]
    packed = _plan_packed(source, listing, task, joining, classes, unwrap)
    if packed is not None:
        return packed
    export = find_export(files if unwrap else [file for file in files if file == TABLE])
    plan = _plan_export(source, export, listing, task, outside, joining) if export else None
    if plan is None:
        plan = _plan_folders(source, listing, task, joining, classes, unwrap)
    return plan


def _plan_packed(
    source: Path, listing: Listing, task: Task, joining: bool, classes: Collection[str], unwrap: bool
) -> Plan | None:
    """The plan for a folder whose images are in tar files or in tables; None for another one."""
    files = [file for file in listing.files if not hidden(file)]
    if not unwrap or TABLE in files or layout_of(files).form != "flat":
        return None
    tables = tables_among(listing.files)
    if tables:
        return plan_parquet(source, tables, task, joining)
    tars = tars_among(listing.files)

    def folders(within: Path, members: Listing) -> Plan:
        return _plan_folders(within, members, task, joining, classes, unwrap)

    return plan_tars(source, tars, listing, task, joining, folders) if tars else None


def plan_sample_tar(file: Path, task: Task, joining: bool, classes: Collection[str]) -> Plan:
    """The plan for one tar file in WebDataset's form.

    Raises:
        DataError: see `plan_tars`.
    """

    def folders(within: Path, members: Listing) -> Plan:
        return _plan_folders(within, members, task, joining, classes, True)

    return plan_tars(file.parent, {file.name: file}, Listing(), task, joining, folders)


def _listing(source: Path, outside: bool) -> Listing:
    """The files of a folder; the members of its shards instead of these."""
    listing, shards = walk(source, outside=outside), shards_of(source)
    if shards is None:
        return listing
    files = {name: file for name, file in listing.files.items() if name not in shards.files}
    return replace(listing, files=dict(sorted({**files, **{name: source / name for name in shards.names()}}.items())))


def _plan_table_file(file: Path, task: Task, outside: bool, joining: bool) -> Plan:
    if tables_among({file.name: file}):
        return plan_parquet(file.parent, {file.name: file}, task, joining)
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{file} is neither a folder, an archive nor a table",
            got=file.suffix or "no suffix",
            allowed=f"a folder; .zip, .tar, .tar.gz, .tar.xz, .tar.bz2; {', '.join(SUFFIXES)}",
            todo="save a spreadsheet as CSV; unpack an archive of another kind",
        )
    table = read_table(file, task, Below(file.parent))
    return plan_table(file, file.parent, table, task, outside, joining)


def _plan_export(
    source: Path, export: Export, listing: Listing, task: Task, outside: bool, joining: bool
) -> Plan | None:
    """The plan for the tables of a folder; None if they state no labels."""
    table = read_export(source, export, task)
    if table is None:
        return None
    base = source / export.base
    plan = plan_table(source / export.tables[0], base, table, task, outside, joining)
    named = set(plan.files.values())
    rest = [name for name, file in listing.files.items() if file not in named and name not in export.tables]
    left_out = LeftOut.of(listing)
    left_out.add(NO_ROW, [name for name in rest if may_be_image(name) and not hidden(name)])
    left_out.add(NO_IMAGE, [name for name in rest if not may_be_image(name) and not hidden(name)])
    found = f"labels: {', '.join(export.tables[:3])}"
    return replace(plan, left_out=left_out, notes=(found, *plan.notes))


def _plan_folders(
    source: Path, listing: Listing, task: Task, joining: bool, classes: Collection[str], unwrap: bool
) -> Plan:
    refuse_what_was_missed(source, listing)
    files = [file for file in listing.files if not hidden(file)]
    layout = layout_of(files, classes=classes, unwrap=unwrap)
    refuse_masks(source, layout, task)
    refuse_folders(source, task)
    places = {file: layout.place(file) for file in files if may_be_image(file)}
    _refuse_no_folders(source, layout, files, len(places))
    refuse_mixed(source, layout)
    loose = [file for file, place in places.items() if place is None]
    masks = masks_in(files, layout)
    useless = {} if joining else masks.left  # their images may be there already
    taken = {file: place for file, place in places.items() if place is not None and file not in useless}
    images = [file for file in taken if not layout.is_mask(file)]
    found = {
        "label": map(layout.label, images),
        "split": map(layout.split, images),
        "mask": (masks.of.get(file) for file in images),
    }
    rows = pd.DataFrame({name: list(values) for name, values in found.items()}, dtype=object)
    if layout.form == "splits":
        _refuse_flat_splits(source, loose, files, layout)
        if not joining:
            _refuse_one_split(source / layout.wrapper, layout, rows)
            refuse_splits(rows, source, task)
    if task == "anomaly" and not joining:
        refuse_no_good(rows["label"], str(source))
    left_out = LeftOut.of(listing)
    left_out.add(LOOSE, loose)
    left_out.add(NO_OWNER, useless)
    left_out.add(NO_IMAGE, [file for file in files if not may_be_image(file)])
    return Plan(
        layout.form,
        _at_places(source, taken, listing),
        source,
        rows,
        left_out=left_out,
        notes=_notes(layout),
        warnings=(*_warnings(layout, joining), *_warnings_of_masks(useless)),
        task=task,
    )


def _notes(layout: Layout) -> tuple[str, ...]:
    around = (f"{layout.wrapper}/ is a folder around all others",) if layout.wrapper else ()
    below = layout.split_at is not None and layout.split_at > layout.label_at
    masks = (f"{layout.masks}/ has masks of defects (the layout of MVTec AD)",) if layout.masks else ()
    return (*around, *masks, *(("the folders of the classes have the splits in them",) if below else ()))


def _warnings_of_masks(useless: Mapping[str, str]) -> tuple[str, ...]:
    if not useless:
        return ()
    named = "; ".join(f"{mask} ({why})" for mask, why in list(useless.items())[:3])
    return (f"{len(useless):,} masks are left out: {named}{'; ...' if len(useless) > 3 else ''}",)


def _warnings(layout: Layout, joining: bool) -> tuple[str, ...]:
    if not layout.alike or joining:
        return ()
    return (
        f"the classes {', '.join(layout.tops[:5])} have the same folders in them ({', '.join(layout.alike[:5])}): if "
        "those are the classes, import the folders one by one",
    )


def _at_places(source: Path, taken: dict[str, str], listing: Listing) -> dict[str, Path]:
    """Place below data/raw -> the file.

    Raises:
        DataError: two files have the same place, because their folders differ only in spaces or in Unicode's form.
    """
    found: dict[str, str] = {}
    twice = [(file, found[place]) for file, place in taken.items() if found.setdefault(place, file) != file]
    if twice:
        raise DataError(
            f"{source}: folders with the name of one class have files of the same name",
            got=f"{len(twice):,}: " + "; ".join(f"`{one}` and `{other}`" for one, other in twice[:5]),
            allowed="each name once; spaces around the name of a class and Unicode's form do not count",
            todo="rename the files, or put them into one folder",
        )
    return {place: listing.files[file] for place, file in found.items()}


def _refuse_no_folders(source: Path, layout: Layout, files: list[str], images: int) -> None:
    refuse_boxes(source, files)
    if layout.form == "flat":
        raise DataError(
            f"{source} has no folders of images",
            got=f"files: {images:,} that may be images, none in a folder; {len(files) - images:,} others"
            if files
            else "an empty folder",
            allowed=KNOWN,
            todo="sort the images into one folder per class, or write a table; if the folder is one class of several, "
            "import the folder around it",
        )


def _refuse_one_split(folder: Path, layout: Layout, rows: pd.DataFrame) -> None:
    if rows["split"].nunique() == 1:
        (name,) = {SPLIT_NAMES[top.lower()] for top in layout.tops}
        raise DataError(
            f"{folder} has a split of its own, but only one",
            got=name,
            allowed="train/ with val/, test/ or both; or folders of classes",
            todo=f"import {folder / layout.tops[0]} itself: Graft then makes the splits",
        )


def _refuse_flat_splits(source: Path, loose: list[str], files: list[str], layout: Layout) -> None:
    prefixes = tuple(f"{layout.wrapper}/{top}/".lstrip("/") for top in layout.tops)
    inside = [file for file in loose if file.startswith(prefixes)]
    if inside:
        raise DataError(
            f"{source}: images in a split folder without a class",
            got=f"{len(inside):,}: {', '.join(inside[:5])}",
            allowed="SPLIT/CLASS/IMAGE",
            todo="put them into one folder per class, or write a table",
        )
