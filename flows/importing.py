"""Images into a project: the sample, or the user's own; copied, checked as a whole first, and put under DVC."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd

from tasks.common.errors import DataError
from tasks.common.files import md5, whole_file, whole_folder
from tasks.common.manifest import names_in
from tasks.common.paths import Paths
from tasks.common.progress import progress
from tasks.common.task import Task
from tasks.preprocess.labels import refuse_folders
from tasks.preprocess.scan import SPLIT_NAMES, TABLE, given_splits, hidden, list_files, read_table

from . import versioning
from .config import load_params, task_of
from .store import store_made_meanwhile

How = Literal["new", "replace", "add"]
"""What to do with images that are in the project already: refuse, replace them, or add to them."""


@dataclass(frozen=True)
class Plan:
    """What an import will do.

    Attributes:
        form: `classes`, `splits` or `table`.
        files: the place below data/raw -> the file to take.
        table: the rows of labels.csv, for the form `table`.
        hidden: files left out because systems leave them about.
        task: what the labels are.
    """

    form: str
    files: dict[str, Path]
    table: pd.DataFrame | None = None
    hidden: int = 0
    task: Task = "classification"

    def summary(self) -> dict[str, object]:
        return {"form": self.form, "files": len(self.files), **self._labels(), "hidden_left_out": self.hidden}

    def _labels(self) -> dict[str, object]:
        if self.task == "regression":
            numbers = [] if self.table is None else self.table["label"].astype(float)
            return {"least": min(numbers, default=None), "most": max(numbers, default=None)}
        if self.table is None:
            place = 1 if self.form == "splits" else 0
            names = [PurePosixPath(name).parts[place] for name in self.files]
        else:
            labels = self.table["label"]
            names = list(labels) if self.task == "classification" else labels.map(names_in).explode().dropna()
        return {"classes": dict(sorted(Counter(names).items()))}


def plan_import(source: Path, task: Task = "classification") -> Plan:
    """Looks at `source` and decides what it is, where labels are what `task` says.

    Raises:
        DataError: it does not exist, or is none of the forms that Graft takes; nothing has been touched then.
    """
    if not source.exists():
        raise DataError(
            f"{source} does not exist", allowed="a folder of images, or a CSV or Parquet table", todo="correct the path"
        )
    if source.is_file():
        return _plan_table(source, task)
    found = list_files(source)
    files = [file for file in found if not hidden(file)]
    left_out = len(found) - len(files)
    if TABLE in files:
        return _plan_table(source / TABLE, task)
    tops = {PurePosixPath(file).parts[0] for file in files if "/" in file}
    if not tops:
        raise DataError(
            f"{source} has no folders of images",
            got=f"{len(files)} files and no folder" if files else "an empty folder",
            allowed="a folder a class; train/, val/, test/ with a folder a class; or a table of path and label",
            todo="sort the images into a folder a class, or write a table",
        )
    refuse_folders(source, task)
    split = {top for top in tops if top.lower() in SPLIT_NAMES}
    if split and split != tops:
        raise DataError(
            f"{source} mixes split folders with others",
            got=", ".join(sorted(tops)[:8]),
            allowed="only train/, val/, test/, or only folders of classes",
            todo="move the other folders away, or rename the class that is called like a split",
        )
    if split:
        _check_split_folders(source, files, tops)
    return Plan(
        "splits" if split else "classes", {file: source / file for file in files if "/" in file}, None, left_out
    )


def _check_split_folders(source: Path, files: list[str], tops: set[str]) -> None:
    given_splits(pd.DataFrame({"split": [SPLIT_NAMES[top.lower()] for top in sorted(tops)]}))
    if len(tops) == 1:
        raise DataError(
            f"{source} has only one split folder",
            got=next(iter(tops)),
            allowed="train/ with val/, test/ or both; or folders of classes",
            todo=f"import {source / next(iter(tops))} itself: Graft then makes the splits",
        )
    flat = [file for file in files if file.count("/") == 1]
    if flat:
        raise DataError(
            f"{source}: images lie in a split folder without a class",
            got=flat[0],
            allowed="SPLIT/CLASS/IMAGE",
            todo="put them into a folder a class",
        )


def _plan_table(file: Path, task: Task) -> Plan:
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(
            f"{file} is neither a folder nor a table", got=file.suffix or "no suffix", allowed=".csv or .parquet"
        )
    table = read_table(file, task)
    given_splits(table)  # refuses splits that leave nothing to train or to test on
    places: list[str] = []
    files: dict[str, Path] = {}
    for name in table["path"]:
        image = file.parent / name
        if not image.is_file():
            raise DataError(
                f"{file} names a file that is not there",
                got=name,
                todo="correct the row; paths start at the table's folder",
            )
        place = _inside(name)
        if files.setdefault(place, image) != image:
            raise DataError(
                f"{file}: two rows would get the same place", got=f"{name} as {place}", todo="rename one of the files"
            )
        places.append(place)
    return Plan("table", files, table.assign(path=places), task=task)


def _inside(name: str) -> str:
    """A place below data/raw for a path of a table, which may be absolute or lead upwards."""
    parts = [part for part in PurePosixPath(Path(name).as_posix()).parts if part not in ("/", "..", ".")]
    return "images/" + "/".join(part.replace(":", "") for part in parts)


def import_images(
    source: Path, root: Path, how: How = "new", *, link: bool = False, force: bool = False
) -> dict[str, object]:
    """Brings `source` into data/raw and puts it under DVC; `source` itself is only read.

    Args:
        how: what to do if data/raw holds images already.
        link: hard links instead of copies, for sources on the same disk.
        force: with `replace`, delete also what DVC has not got.

    Raises:
        DataError: nothing that Graft can take, or images are there already; data/raw is as before.
    """
    source = source.resolve()
    paths = Paths(root)
    if source == paths.raw.resolve() or paths.raw.resolve() in source.parents:
        raise DataError(f"{source} is the project's own data/raw", todo="`dvc add data/raw` after changing it by hand")
    if link:
        _refuse_links_that_dvc_would_lock(root, source)
    with store_made_meanwhile(root):
        return _bring(plan_import(source, _task(paths)), paths, how, link, force)


def _refuse_links_that_dvc_would_lock(root: Path, source: Path) -> None:
    """With a cache of links, DVC makes every file that it takes over read-only: here, the user's own."""
    kinds = versioning.cache_types(root)
    if {"hardlink", "symlink"} & set(kinds):
        raise DataError(
            f"`--link` would make the files of {source} read-only",
            got=f"DVC's cache.type is {', '.join(kinds)}",
            allowed="`--link` with cache.type reflink or copy",
            todo="import without `--link`",
        )


def import_sample(root: Path, how: How = "new", *, force: bool = False) -> dict[str, object]:
    """The 2,000 images of sample/fashion-mnist-2000.zip."""
    paths = Paths(root)
    archive = root / "sample" / "fashion-mnist-2000.zip"
    if not archive.is_file():
        raise DataError(f"{archive} does not exist", todo="run this in a clone of Graft, or import images of your own")
    folder = paths.tmp / "sample"
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    try:
        with store_made_meanwhile(root):
            return _bring(plan_import(folder, _task(paths)), paths, how, False, force)
    finally:
        shutil.rmtree(folder)


def _task(paths: Paths) -> Task:
    """What params.yaml says that labels are."""
    return task_of(load_params(paths.params))


def _bring(plan: Plan, paths: Paths, how: How, link: bool, force: bool) -> dict[str, object]:
    _put_back(paths.raw)
    there = paths.raw.is_dir() and any(paths.raw.iterdir())
    if there and how == "new":
        raise DataError(
            f"{paths.raw} holds images already",
            got=f"{sum(not hidden(file) for file in list_files(paths.raw)):,} files",
            todo="`--add` adds to them, `--replace` puts the new ones in their place",
        )
    if there and how == "replace" and not force:
        _refuse_to_lose(paths)
    if there and how == "add":
        plan = _added(plan, paths.raw)
    with _put_back_on_failure(paths.raw) as aside:
        with whole_folder(paths.raw) as folder:
            if there and how == "add":
                shutil.copytree(paths.raw, folder, dirs_exist_ok=True, copy_function=_same_file)
            _fill(folder, plan, link)
            if paths.raw.exists():
                paths.raw.replace(aside)
        versioning.dvc_add(paths.root, "data/raw")
    return {**plan.summary(), "dvc": versioning.raw_hash(paths.root)}


def _fill(folder: Path, plan: Plan, link: bool) -> None:
    with progress("import: copying", len(plan.files), "files") as bar:
        for name, file in plan.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _take(file, place, link)
            bar.add()
    if plan.table is not None:
        with whole_file(folder / TABLE) as part:  # never through a hard link into the old one
            plan.table.to_csv(part, index=False)


def _refuse_to_lose(paths: Paths) -> None:
    """Every file that would go must be one that DVC can bring back."""
    kept = versioning.raw_listing(paths.root)
    files = [file for file in list_files(paths.raw) if not hidden(file)]
    lost = [file for file in files if kept.get(file) != md5(paths.raw / file)]
    if lost:
        raise DataError(
            f"{paths.raw} holds files that DVC has not got: replacing them would lose them",
            got=f"{len(lost):,} files: {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}",
            todo="`dvc add data/raw` keeps them in DVC's cache; `--force` deletes them",
        )


def _aside(raw: Path) -> Path:
    return raw.with_name(f".{raw.name}.before.part")


def _put_back(raw: Path) -> None:
    """The earlier images, if an import was killed before the new ones were there."""
    if _aside(raw).exists() and not raw.exists():
        _aside(raw).replace(raw)


@contextmanager
def _put_back_on_failure(raw: Path) -> Iterator[Path]:
    """Where to set the earlier images aside: they come back if the block fails."""
    aside = _aside(raw)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
    except BaseException:
        if aside.exists():
            shutil.rmtree(raw, ignore_errors=True)
            aside.replace(raw)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _added(plan: Plan, raw: Path) -> Plan:
    """The plan for images that join others of the same form."""
    now = plan_import(raw, plan.task)
    if now.form != plan.form:
        raise DataError(
            "the new images come in another form than those in data/raw",
            got=plan.form,
            allowed=now.form,
            todo="bring them into the same form, or use `--replace`",
        )
    for name, file in plan.files.items():
        old = raw / name
        if old.is_file() and old.read_bytes() != file.read_bytes():
            raise DataError("another image of this name is there already", got=name, todo="rename the new one")
    if plan.table is None or now.table is None:
        return plan
    table = pd.concat([now.table.assign(path=[name.removeprefix("images/") for name in now.table["path"]]), plan.table])
    return Plan(plan.form, plan.files, table.drop_duplicates("path", keep="last"), plan.hidden, plan.task)


def _same_file(old: str, new: str) -> None:
    """The project's own image under its new folder: a hard link costs neither time nor space."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def _take(file: Path, place: Path, link: bool) -> None:
    place.unlink(missing_ok=True)
    if link:
        try:
            os.link(file, place)
            return
        except OSError as error:
            raise DataError(
                f"{file} cannot be linked into the project",
                got=error.strerror,
                todo="import without `--link`, which copies",
            ) from error
    shutil.copyfile(file, place)
