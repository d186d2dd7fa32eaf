"""Masks of defects in the inbox. A mask is imported with its image, under the name that its image gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import pandas as pd

from graft.tasks.common.data.task import GOOD, Task
from graft.tasks.preprocess.layouts import MASK, WITH_MASKS, Layout, layout_of
from graft.tasks.preprocess.mask_names import ENDING, Masks, masks_in
from graft.tasks.preprocess.tables import spellings


def masks_of(files: list[str], table: pd.DataFrame | None, task: Task) -> Masks:
    """The masks among the files of the inbox."""
    uses = task in WITH_MASKS
    if table is not None:
        return _masks_of_rows(files, table) if uses and MASK in table else Masks()
    layout = layout_of(files, classes=(GOOD,) if uses else (), unwrap=False)
    found = masks_in(files, layout)
    why = f"masks of defects need another task than `head.task: {task}`"
    return found if uses else Masks(left=dict.fromkeys(found.names, why))


def _masks_of_rows(files: list[str], table: pd.DataFrame) -> Masks:
    present = set(files)
    rows = table.loc[table["path"].isin(present), ["path", MASK]].itertuples(index=False)
    named = {path: spelled for path, cell in rows if (spelled := _spelling(cell, present))}
    return Masks(named)


def _spelling(cell: object, present: set[str]) -> str:
    """The file that a cell means; empty for an empty cell."""
    variants = [] if pd.isna(cell) else spellings(cell)
    return next((name for name in variants if name in present), variants[0] if variants else "")


def apart(masks: Masks, ready: set[str], known: set[str]) -> Iterator[tuple[str, str]]:
    """Images and masks that have to wait for each other, and why.

    Args:
        ready: files that are complete.
        known: images that are in the project already.
    """
    wanted = {mask for image, mask in masks.of.items() if image not in known}
    for image, mask in masks.of.items():
        if image in known and mask in wanted:
            continue
        if image in known:
            yield mask, "its image is in the project already: add the mask to data/raw by hand"
        elif image not in ready and mask in ready:
            yield mask, f"its image {image} is not complete"
        elif image in ready and mask not in ready:
            yield image, f"its mask {mask} is not there, or not complete"


def place_of_mask(mask: str, image: str, place: str, layout: Layout) -> str:
    """Where a mask of a folder `ground_truth/` goes if its image goes to `place`."""
    path = PurePosixPath(layout.place(mask) or mask)
    if PurePosixPath(place).stem == PurePosixPath(image).stem:
        return str(path)
    ending = ENDING if path.stem.endswith(ENDING) else ""
    return str(path.with_name(f"{PurePosixPath(place).stem}{ending}{path.suffix}"))


def with_places(rows: pd.DataFrame, places: Mapping[str, str], masks: Masks) -> pd.DataFrame:
    """The rows of a table with the new places of the images and masks."""
    found = rows.assign(path=rows["path"].map(places))
    if MASK not in rows:
        return found
    return found.assign(mask=[places.get(masks.of.get(path, ""), "") for path in rows["path"]])
