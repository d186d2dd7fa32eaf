"""Images into a project: the sample, or the user's own; copied, checked as a whole first, and put under DVC."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import pandas as pd
from filelock import FileLock, Timeout

from tasks.common.core.errors import DataError, GraftError
from tasks.common.core.files import md5, whole_file, whole_folder
from tasks.common.core.paths import Paths
from tasks.common.core.progress import progress, say
from tasks.common.data.manifest import names_in
from tasks.common.data.task import Task
from tasks.preprocess.labels import refuse_folders
from tasks.preprocess.scan import SPLIT_NAMES, TABLE, given_splits, hidden, list_files, read_table
from tasks.preprocess.walk import copy_regular, refuse_what_was_missed, walk

from ..runtime.params import load_params
from ..tracking.create_store import store_made_meanwhile
from ..versioning import dvc

How = Literal["new", "replace", "add"]
"""What to do with images that are in the project already: refuse, replace them, or add to them."""

PATIENCE = 600.0
"""Seconds for which an import waits for another one of the same project."""


@dataclass(frozen=True)
class Plan:
    """What an import will do.

    Attributes:
        form: `classes`, `splits` or `table`.
        files: the place below data/raw -> the file to take, by a path without links.
        source: the folder that `files` are below.
        table: the rows of labels.csv, for the form `table`.
        hidden: files left out because systems leave them about.
        repeated: links left out because the file or folder is taken under another name.
        task: what the labels are.
    """

    form: str
    files: dict[str, Path]
    source: Path
    table: pd.DataFrame | None = None
    hidden: int = 0
    repeated: int = 0
    task: Task = "classification"

    def summary(self) -> dict[str, object]:
        left_out = {"hidden_left_out": self.hidden, "repeated_links_left_out": self.repeated}
        return {"form": self.form, "files": len(self.files), **self._labels(), **left_out}

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


def plan_import(source: Path, task: Task = "classification", *, outside: bool = False, joining: bool = False) -> Plan:
    """Looks at `source` and decides what it is, where labels are what `task` says.

    Args:
        outside: also take files that links, or a table's rows, name outside the folder.
        joining: the images join others, so they need not have a split to train on and one to test on.

    Raises:
        DataError: it does not exist, is none of the forms that Graft takes, or holds what cannot be taken; nothing has
            been touched then.
    """
    if not source.exists():
        raise DataError(
            f"{source} does not exist", allowed="a folder of images, or a CSV or Parquet table", todo="correct the path"
        )
    if source.is_file():
        return _plan_table(source, task, outside, joining)
    listing = walk(source, outside=outside)
    files = [file for file in listing.files if not hidden(file)]
    if TABLE in files:
        return _plan_table(source / TABLE, task, outside, joining)
    refuse_what_was_missed(source, listing)
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
        _refuse_flat_splits(source, files)
    if split and not joining:
        _check_split_folders(source, tops)
    return Plan(
        "splits" if split else "classes",
        {file: listing.files[file] for file in files if "/" in file},
        source,
        hidden=len(listing.files) - len(files),
        repeated=len(listing.repeated),
    )


def _check_split_folders(source: Path, tops: set[str]) -> None:
    given_splits(pd.DataFrame({"split": [SPLIT_NAMES[top.lower()] for top in sorted(tops)]}))
    if len(tops) == 1:
        raise DataError(
            f"{source} has only one split folder",
            got=next(iter(tops)),
            allowed="train/ with val/, test/ or both; or folders of classes",
            todo=f"import {source / next(iter(tops))} itself: Graft then makes the splits",
        )


def _refuse_flat_splits(source: Path, files: list[str]) -> None:
    flat = [file for file in files if file.count("/") == 1]
    if flat:
        raise DataError(
            f"{source}: images lie in a split folder without a class",
            got=flat[0],
            allowed="SPLIT/CLASS/IMAGE",
            todo="put them into a folder a class",
        )


def _plan_table(file: Path, task: Task, outside: bool, joining: bool) -> Plan:
    if file.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(
            f"{file} is neither a folder nor a table", got=file.suffix or "no suffix", allowed=".csv or .parquet"
        )
    table = read_table(file, task)
    if not joining:
        given_splits(table)  # refuses splits that leave nothing to train or to test on
    places: list[str] = []
    files: dict[str, Path] = {}
    for row, name in enumerate(table["path"], 1):
        image, place = _image_of_row(file, row, name, outside), _inside(name)
        if files.setdefault(place, image) != image:
            raise DataError(
                f"{file}: two rows would get the same place", got=f"{name} as {place}", todo="rename one of the files"
            )
        places.append(place)
    return Plan("table", files, file.parent, table.assign(path=places), task=task)


def _image_of_row(table: Path, row: int, name: str, outside: bool) -> Path:
    """The file itself, without links on its path; rows count from 1, without the header."""
    folder, image = Path(os.path.realpath(table.parent)), Path(os.path.realpath(table.parent / name))
    if not outside and not image.is_relative_to(folder):
        raise DataError(
            f"{table} names a file outside its folder",
            got=f"row {row}: {name}" + ("" if image == folder / name else f", which is {image}"),
            allowed=f"files below {folder}",
            todo="correct the row, or `--allow-outside` if you trust the table",
        )
    if not image.exists():
        raise DataError(
            f"{table} names a file that is not there",
            got=f"row {row}: {name}",
            todo="correct the row; paths start at the table's folder",
        )
    if not stat.S_ISREG(image.stat().st_mode):
        raise DataError(f"{table} names what is not a regular file", got=f"row {row}: {name}", todo="correct the row")
    return image


def _inside(name: str) -> str:
    """A place below data/raw for a path of a table, which may be absolute or lead upwards."""
    parts = [part for part in PurePosixPath(Path(name).as_posix()).parts if part not in ("/", "..", ".")]
    return "images/" + "/".join(part.replace(":", "") for part in parts)


def import_images(
    source: Path,
    root: Path,
    how: How = "new",
    *,
    link: bool = False,
    force: bool = False,
    outside: bool = False,
) -> dict[str, object]:
    """Brings `source` into data/raw and puts it under DVC; `source` itself is only read.

    Args:
        how: what to do if data/raw holds images already.
        link: hard links instead of copies, for sources on the same disk.
        force: with `replace`, also delete what DVC does not track.
        outside: also take files that links, or a table's rows, name outside the folder.

    Raises:
        DataError: nothing that Graft can take, or images are there already; data/raw is as before.
        GraftError: it could not be written, or another import does not end; data/raw is as before.
    """
    source = source.resolve()
    paths = Paths(root)
    if source == paths.raw.resolve() or paths.raw.resolve() in source.parents:
        raise DataError(f"{source} is the project's own data/raw", todo="`dvc add data/raw` after changing it by hand")
    if link:
        _refuse_links_that_dvc_would_lock(root, source)
    with _one_at_a_time(paths), store_made_meanwhile(root):
        plan = plan_import(source, _task(paths), outside=outside, joining=how == "add" and _holds_images(paths.raw))
        return _bring(plan, paths, how, link, force)


@contextmanager
def _one_at_a_time(paths: Paths) -> Iterator[None]:
    """One import a project.

    Raises:
        GraftError: another one works for longer than `PATIENCE`.
    """
    paths.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.state / "import.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"import: another import is at work on this project; waiting for it, at most {PATIENCE:.0f} s")
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise GraftError(
                "another import is still at work on this project",
                got=f"{lock.lock_file} has been held for {PATIENCE:.0f} s",
                todo="wait until it ends, then import again",
            ) from None
    try:
        yield
    finally:
        lock.release()


def _refuse_links_that_dvc_would_lock(root: Path, source: Path) -> None:
    """With a cache of links, DVC makes every file that it takes over read-only: here, the user's own."""
    kinds = dvc.cache_types(root)
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
        with _one_at_a_time(paths), store_made_meanwhile(root):
            return _bring(plan_import(folder, _task(paths)), paths, how, False, force)
    finally:
        shutil.rmtree(folder)


def _task(paths: Paths) -> Task:
    """What params.yaml says that labels are."""
    return load_params(paths.params).head.task


def _bring(plan: Plan, paths: Paths, how: How, link: bool, force: bool) -> dict[str, object]:
    _refuse_nothing(plan)
    _refuse_a_link(paths.raw)
    _put_back(paths.raw)
    there = _holds_images(paths.raw)
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
    try:
        with _as_before_on_failure(paths.raw) as aside:
            with whole_folder(paths.raw) as folder:
                if there and how == "add":
                    _keep(paths.raw, folder)
                _fill(folder, plan, link)
                if paths.raw.exists():
                    paths.raw.replace(aside)
            dvc.dvc_add(paths.root, "data/raw")
    except OSError as error:
        raise GraftError(
            f"the images could not be copied to {paths.raw}, which is as before",
            got=f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
            todo="make room or set the permissions that are missing, then import again",
        ) from error
    return {**plan.summary(), "dvc": dvc.raw_hash(paths.root)}


def _holds_images(raw: Path) -> bool:
    return raw.is_dir() and any(raw.iterdir())


def _refuse_nothing(plan: Plan) -> None:
    if not plan.files:
        raise DataError(
            f"{plan.source} has no images to import",
            got=f"a {plan.form} without rows" if plan.form == "table" else "no files",
            todo="add images, or name another folder or table",
        )


def _refuse_a_link(raw: Path) -> None:
    """DVC follows no links on the way to what it tracks, and to replace the link would leave the images behind."""
    real = Path(os.path.realpath(raw))
    if real != Path(os.path.realpath(raw.parent.parent)) / "data" / "raw":
        raise DataError(
            f"{raw} is a link, or lies in one",
            got=f"it leads to {real}",
            allowed="a folder of the project itself",
            todo="remove the link and import again; to keep the images on another disk, set `dvc cache dir` to a "
            "folder there and `dvc config cache.type symlink`",
        )


def _keep(raw: Path, folder: Path) -> None:
    """The images that are there already, into the new folder."""
    for name in list_files(raw):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _same_file(raw / name, place)


def _fill(folder: Path, plan: Plan, link: bool) -> None:
    with progress("import: copying", len(plan.files), "files") as bar:
        for name, file in plan.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _take(file, plan.source, place, link)
            bar.add()
    if plan.table is not None:
        with whole_file(folder / TABLE) as part:  # never through a hard link into the old one
            plan.table.to_csv(part, index=False)


def _refuse_to_lose(paths: Paths) -> None:
    """Every file that would go must be one that DVC can bring back."""
    kept = dvc.raw_listing(paths.root)
    files = [file for file in list_files(paths.raw) if not hidden(file)]
    lost = [file for file in files if kept.get(file) != md5(paths.raw / file)]
    if lost:
        raise DataError(
            f"{paths.raw} holds files that DVC does not track: replacing them would lose them",
            got=f"{len(lost):,} files: {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}",
            todo="`dvc add data/raw` keeps them in DVC's cache; `--force` deletes them",
        )


def _aside(raw: Path) -> Path:
    return raw.with_name(f".{raw.name}.before.part")


def _put_back(raw: Path) -> None:
    """The earlier images, if an import was killed before the new ones were there; if they were, no more than they."""
    if _aside(raw).exists() and not raw.exists():
        _aside(raw).replace(raw)
    shutil.rmtree(_aside(raw), ignore_errors=True)


@contextmanager
def _as_before_on_failure(raw: Path) -> Iterator[Path]:
    """Where to set the earlier images aside: they come back if the block fails, and if there were none, none remain."""
    aside, before = _aside(raw), raw.stat().st_ino if raw.exists() else None
    try:
        yield aside
    except BaseException:
        if raw.exists() and raw.stat().st_ino != before:  # never what was not set aside
            failed = raw.with_name(f".{raw.name}.failed.part")
            shutil.rmtree(failed, ignore_errors=True)  # of an import that was killed while it cleared up
            raw.replace(failed)
            shutil.rmtree(failed, ignore_errors=True)
        if aside.exists():
            aside.replace(raw)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _added(plan: Plan, raw: Path) -> Plan:
    """The plan for images that join others of the same form."""
    now = plan_import(raw, plan.task, outside=True)  # DVC's own links lead to its cache
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
    return replace(plan, table=table.drop_duplicates("path", keep="last"))


def _same_file(old: Path, new: Path) -> None:
    """The project's own image under its new folder: a hard link costs neither time nor space."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def _take(file: Path, source: Path, place: Path, link: bool) -> None:
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
    within = Path(os.path.realpath(source))
    copy_regular(file, within if file.is_relative_to(within) else file.parent, place)
