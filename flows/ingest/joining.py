"""Images that join others: the same layout, and no name twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.images.shards import hash_of, is_stored
from graft.tasks.preprocess.layouts import FURTHER, TABLE, hidden, layout_of
from graft.tasks.preprocess.walk import list_files

from .plan import plan_import
from .planned import Plan, another_image


def holds_images(raw: Path) -> bool:
    return raw.is_dir() and any(raw.iterdir())


def known_classes(raw: Path) -> set[str]:
    """The classes of the folders in data/raw; none for a table."""
    files = [file for file in list_files(raw) if not hidden(file)]
    layout = layout_of(files)
    return set() if TABLE in files else {label for file in files if (label := layout.label(file))}


def joined(plan: Plan, raw: Path) -> Plan:
    """The plan for images that are added to others of the same layout.

    Raises:
        DataError: the layouts differ, or data/raw has another image of the same name.
    """
    now = plan_import(raw, plan.task, outside=True, joining=True)  # DVC's own links lead to its cache
    if now.form != plan.form:
        raise DataError(
            "the new images have another layout than those in data/raw",
            got=plan.form,
            allowed=now.form,
            todo="arrange them in the same layout, or use `--replace`",
        )
    _refuse_other_places(now, raw)
    for name, file in plan.files.items() if plan.content is None else ():
        old = raw / name
        if is_stored(old) and hash_of(old) != hash_of(file):
            raise another_image(name)
    if plan.table is None or now.table is None:
        return plan
    before = now.rows.copy()
    for name in ("path", *FURTHER):
        before[name] = before[name].map(lambda place: place.removeprefix("images/"), na_action="ignore").astype(object)
    return replace(plan, rows=pd.concat([before, plan.rows]).drop_duplicates("path", keep="last"))


def _refuse_other_places(now: Plan, raw: Path) -> None:
    """Where data/raw was filled by hand, an import might have put its files elsewhere, and new ones would not fit."""
    moved = [] if now.table is not None else [place for place in now.files if not is_stored(raw / place)]
    if moved:
        raise DataError(
            "data/raw has its classes in a folder around them, or spaces around their names",
            got="; ".join([*now.notes, f"`graft import` would have written {moved[0]}"]),
            todo="move data/raw to another place, and import it with `--replace --force`; then add the new images",
        )
