"""Images of the pool that have a label now become images of data/raw, in the layout that it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd

from graft.tasks.common.core.paths import Paths
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.layouts import layout_of
from graft.tasks.preprocess.scan import TABLE

from ..ingest.importing import import_images
from ..ingest.inbox import fetch_images
from ..ingest.joining import holds_images
from .current import Labels, read_labels_now
from .pool import alone, remove_from_pool


def take_over_labelled(root: Path) -> int:
    """Imports the images of the pool that have a label, and takes them out of the pool; returns how many.

    A process that is killed in between loses nothing: the next call goes on.

    Raises:
        GraftError: the images cannot be imported.
    """
    paths = Paths(root)
    with alone(paths):
        found = read_labels_now(root)
        ready = _ready(found)
        if not len(ready):
            return 0
        if not paths.raw.is_dir() and (root / "data" / "raw.dvc").is_file():
            fetch_images(root)  # without the others the import would begin a new data set
            found = read_labels_now(root)
        new = ready[~ready["image_id"].isin(set(found.data["image_id"]))]
        if len(new):
            _import(new, found, paths)
        remove_from_pool(root, list(ready["image_id"]))
    return len(new)


def _ready(found: Labels) -> pd.DataFrame:
    labelled = [
        image_id
        for image_id in found.pool["image_id"]
        if image_id in found.standing and found.standing[image_id].label is not None
    ]
    ready = found.pool[found.pool["image_id"].isin(set(labelled))]
    return ready.assign(label=[found.standing[image_id].label for image_id in ready["image_id"]])


def _import(new: pd.DataFrame, found: Labels, paths: Paths) -> None:
    staged = paths.tmp / "labelled"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        _stage(new, list(found.data["path"]), found.task, paths, staged)
        import_images(staged, paths.root, "add" if holds_images(paths.raw) else "new", unwrap=False)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _stage(new: pd.DataFrame, there: list[str], task: Task, paths: Paths, staged: Path) -> None:
    """Links the images into a folder with the layout of data/raw."""
    listed = (paths.raw / TABLE).is_file() or (not there and task in ("multilabel", "regression"))
    split = "" if listed or layout_of(there, unwrap=False).form != "splits" else "train/"
    rows = []
    for row in new.itertuples():
        name = Path(str(row.path)).name
        place = name if listed else f"{split}{_folder(str(row.label))}/{name}"
        target = staged / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(paths.pool / str(row.path), target)
        rows.append({"path": place, "label": row.label, "group": row.group})
    if listed:
        pd.DataFrame(rows).to_csv(staged / TABLE, index=False)


def _folder(label: str) -> str:
    """A folder's name for a class. The class itself is in data/labels.csv, which counts."""
    return "".join("_" if letter in '/\\:*?"<>|\0' else letter for letter in label).strip(". ") or "_"
