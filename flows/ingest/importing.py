"""Imports images into a project: the sample, or your own. They are checked first, then copied and put under DVC."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5, whole_file, whole_folder
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress, say
from graft.tasks.common.data.task import Task
from graft.tasks.preprocess.scan import TABLE, hidden, list_files
from graft.tasks.preprocess.walk import copy_regular

from ..runtime.params import load_params
from ..runtime.turns import turn
from ..tracking.create_store import store_made_meanwhile
from ..versioning import dvc
from ..versioning.dvc_config import cache_types
from ..versioning.exclusion import kept_from_dvc
from ..versioning.losses import require_no_loss
from .archives import is_archive, unpack
from .joining import holds_images, joined, known_classes
from .plan import plan_import
from .planned import SYSTEM, Plan

How = Literal["new", "replace", "add"]
"""What to do with images that are already in the project: refuse, replace them, or add to them."""

SAMPLE = files("graft") / "sample" / "fashion-mnist-2000.zip"

Take = Callable[[Path, Path, Path], None]
"""Brings a file of a source to a place: file, source, place."""

PATIENCE = 600.0
"""Seconds for which an import waits for another one of the same project."""


def import_images(
    source: Path,
    root: Path,
    how: How = "new",
    *,
    link: bool = False,
    force: bool = False,
    outside: bool = False,
    unwrap: bool = True,
) -> dict[str, object]:
    """Brings `source` into data/raw and puts it under DVC; `source` itself is only read.

    Args:
        how: what to do if data/raw already holds images.
        link: hard links instead of copies, for sources on the same disk.
        force: with `replace`, also delete what DVC does not track.
        outside: also take files that links, or a table's rows, name outside the folder.
        unwrap: whether everything may lie in folders around the images.

    Raises:
        DataError: the source cannot be imported, or data/raw already holds images; data/raw is unchanged.
        GraftError: data/raw could not be written, or another import does not end; data/raw is unchanged.
    """
    source = source.resolve()
    paths = Paths(root)
    _refuse_own_images(source, paths)
    if link:
        _refuse_links_that_dvc_would_lock(root, source)
    with _one_at_a_time(paths), store_made_meanwhile(root), _planned(source, paths, how, outside, unwrap) as plan:
        return _bring(plan, paths, how, _way(source, link), force)


def preview_images(
    source: Path, root: Path, how: How = "new", *, force: bool = False, outside: bool = False
) -> dict[str, object]:
    """What `import_images` would do; nothing is written. An archive is unpacked into a temporary folder.

    Raises:
        DataError: the source cannot be imported, or not without losing images.
    """
    source, paths = source.resolve(), Paths(root)
    _refuse_own_images(source, paths)
    alone = _one_at_a_time(paths) if is_archive(source) else nullcontext()
    with alone, _planned(source, paths, how, outside, unwrap=True) as plan:
        _refuse_nothing(plan)
        _refuse_a_link(paths.raw)
        there = holds_images(paths.raw)
        _refuse_to_lose(paths, how, force, there)
        if there and how == "add":
            joined(plan, paths.raw)
        if there and how == "new":
            held = "data/raw already holds images: `--add` adds to them, `--replace` replaces them"
            plan = replace(plan, warnings=(held, *plan.warnings))
        return plan.summary()


def _refuse_own_images(source: Path, paths: Paths) -> None:
    if source == paths.raw.resolve() or paths.raw.resolve() in source.parents:
        raise DataError(f"{source} is the project's own data/raw", todo="`dvc add data/raw` after changing it by hand")


@contextmanager
def _planned(source: Path, paths: Paths, how: How, outside: bool, unwrap: bool) -> Iterator[Plan]:
    """The plan, whose files exist until the block ends."""
    joining = how == "add" and holds_images(paths.raw)
    classes = known_classes(paths.raw) if joining else set()
    task = _task(paths)
    if not (source.is_file() and is_archive(source)):
        plan = plan_import(source, task, outside=outside, joining=joining, classes=classes, unwrap=unwrap)
        yield replace(plan, joining=joining)
        return
    with _unpacked(source, paths) as (folder, left):
        try:
            plan = plan_import(folder, task, joining=joining, classes=classes)
        except DataError as error:
            raise _renamed(error, folder, source) from None
        plan.left_out.add(SYSTEM, left)
        yield replace(plan, joining=joining)


@contextmanager
def _unpacked(archive: Path, paths: Paths) -> Iterator[tuple[Path, list[str]]]:
    """A temporary folder of the project with the members, and the names of members that systems leave behind.

    Raises:
        GraftError: it cannot be unpacked.
    """
    folder = paths.tmp / "import"
    shutil.rmtree(folder, ignore_errors=True)  # of an import that was killed
    try:
        folder.mkdir(parents=True)
        yield folder, unpack(archive, folder)
    except OSError as error:
        raise GraftError(
            f"{archive} could not be unpacked",
            got=f"{error.strerror or error}: {error.filename or folder}",
            todo="free some space or set the missing permissions, then import again",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _renamed(error: DataError, folder: Path, archive: Path) -> DataError:
    """The error of an archive, which the user knows by its name."""

    def name(text: object) -> str:
        return str(text).replace(str(folder), str(archive))

    got = None if error.got is None else name(error.got)
    return DataError(name(error.what), got=got, allowed=name(error.allowed), todo=name(error.todo))


def _one_at_a_time(paths: Paths) -> AbstractContextManager[None]:
    """Lets one import at a time work on a project.

    Raises:
        TransientError: another import takes longer than `PATIENCE`.
    """
    return turn(paths.state / "import.lock", "another import", PATIENCE, say)


def _refuse_links_that_dvc_would_lock(root: Path, source: Path) -> None:
    """If its cache uses links, DVC makes every file that it tracks read-only: here, the user's own files."""
    kinds = cache_types(root)
    if {"hardlink", "symlink"} & set(kinds):
        raise DataError(
            f"`--link` would make the files of {source} read-only",
            got=f"DVC's cache.type is {', '.join(kinds)}",
            allowed="`--link` with cache.type reflink or copy",
            todo="import without `--link`",
        )


def import_sample(root: Path, how: How = "new", *, force: bool = False) -> dict[str, object]:
    """Imports the 2,000 images of sample/fashion-mnist-2000.zip, which is installed with the code."""
    with as_file(SAMPLE) as archive:
        return import_images(archive, root, how, force=force)


def _task(paths: Paths) -> Task:
    """The kind of labels, from params.yaml."""
    return load_params(paths.params).head.task


def _bring(plan: Plan, paths: Paths, how: How, take: Take, force: bool) -> dict[str, object]:
    _refuse_nothing(plan)
    with ExitStack() as alone:
        alone.enter_context(kept_from_dvc(paths.root, "data/raw"))  # a stage may be reading the images
        plan = _replaced(plan, paths, how, take, force, alone.close)
    return {**plan.summary(), "dvc": dvc.raw_hash(paths.root)}


def _replaced(plan: Plan, paths: Paths, how: How, take: Take, force: bool, let_dvc_in: Callable[[], None]) -> Plan:
    """Replaces data/raw and puts it under DVC; returns the plan, with the table of what was there before."""
    _refuse_a_link(paths.raw)
    _put_back(paths.raw)
    there = holds_images(paths.raw)
    if there and how == "new":
        raise DataError(
            f"{paths.raw} already holds images",
            got=f"{sum(not hidden(file) for file in list_files(paths.raw)):,} files",
            todo="`--add` adds to them, `--replace` replaces them",
        )
    _refuse_to_lose(paths, how, force, there)
    if there and how == "add":
        plan = joined(plan, paths.raw)
    try:
        with _as_before_on_failure(paths.raw) as aside:
            with whole_folder(paths.raw) as folder:
                if there and how == "add":
                    _keep(paths.raw, folder)
                _fill(folder, plan, take)
                if paths.raw.exists():
                    paths.raw.replace(aside)
            let_dvc_in()
            dvc.dvc_add(paths.root, "data/raw")
    except OSError as error:
        raise GraftError(
            f"the images could not be copied to {paths.raw}, which is unchanged",
            got=f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
            todo="free some space or set the missing permissions, then import again",
        ) from error
    return plan


def _refuse_nothing(plan: Plan) -> None:
    if not plan.files:
        raise DataError(
            f"{plan.source} has no images to import",
            got="a table without rows" if plan.form == "table" else "no files",
            todo="add images, or name another folder or table",
        )


def _refuse_a_link(raw: Path) -> None:
    """DVC does not follow links to data that it tracks, and replacing the link would leave the images behind."""
    real = Path(os.path.realpath(raw))
    if real != Path(os.path.realpath(raw.parent.parent)) / "data" / "raw":
        raise DataError(
            f"{raw} is a link, or is inside one",
            got=f"it leads to {real}",
            allowed="a folder of the project itself",
            todo="remove the link and import again; to keep the images on another disk, set `dvc cache dir` to a "
            "folder there and `dvc config cache.type symlink`",
        )


def _keep(raw: Path, folder: Path) -> None:
    """Puts the images that are already there into the new folder."""
    for name in list_files(raw):
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _same_file(raw / name, place)


def _fill(folder: Path, plan: Plan, take: Take) -> None:
    with progress("import: copying", len(plan.files), "files") as bar:
        for name, file in plan.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            take(file, plan.source, place)
            bar.add()
    if plan.table is not None:
        with whole_file(folder / TABLE) as part:  # never through a hard link into the old one
            plan.table.to_csv(part, index=False)


def _refuse_to_lose(paths: Paths, how: How, force: bool, there: bool) -> None:
    if there and how == "replace" and not force:
        _refuse_to_delete(paths)
    if there and how == "add":
        require_no_loss(paths.root)  # `dvc add` would list only what is left


def _refuse_to_delete(paths: Paths) -> None:
    """Every file that would be deleted must be one that DVC can restore."""
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
    """Restores the earlier images if an import was killed before the new ones were in place; else deletes them."""
    if _aside(raw).exists() and not raw.exists():
        _aside(raw).replace(raw)
    shutil.rmtree(_aside(raw), ignore_errors=True)


@contextmanager
def _as_before_on_failure(raw: Path) -> Iterator[Path]:
    """Yields a place for the earlier images. If the block fails they are restored; if there were none, none remain."""
    aside, before = _aside(raw), raw.stat().st_ino if raw.exists() else None
    try:
        yield aside
    except BaseException:
        if raw.exists() and raw.stat().st_ino != before:  # never images that were not set aside
            failed = raw.with_name(f".{raw.name}.failed.part")
            shutil.rmtree(failed, ignore_errors=True)  # of an import that was killed during its clean-up
            raw.replace(failed)
            shutil.rmtree(failed, ignore_errors=True)
        if aside.exists():
            aside.replace(raw)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _same_file(old: Path, new: Path) -> None:
    """Puts the project's own image into the new folder: a hard link costs neither time nor space."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def _way(source: Path, link: bool) -> Take:
    """How files come to their places. What an archive held is the project's own already."""
    if source.is_file() and is_archive(source):
        return lambda file, _, place: _same_file(file, place)
    return _link if link else _copy


def _link(file: Path, _: Path, place: Path) -> None:
    try:
        os.link(file, place)
    except OSError as error:
        raise DataError(
            f"{file} cannot be linked into the project",
            got=error.strerror,
            todo="import without `--link`, which copies",
        ) from error


def _copy(file: Path, source: Path, place: Path) -> None:
    within = Path(os.path.realpath(source))
    copy_regular(file, within if file.is_relative_to(within) else file.parent, place)
