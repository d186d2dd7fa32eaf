"""Imports images into a project: the sample, or your own. They are checked first, then copied and put under DVC."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from graft.tasks.common.core.errors import DataError, GraftError
from graft.tasks.common.core.files import md5, whole_file
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress
from graft.tasks.common.data.task import Task
from graft.tasks.common.images.shard_size import SIZE_MB
from graft.tasks.common.images.shard_writer import needed
from graft.tasks.common.images.shards import shards_of
from graft.tasks.preprocess.scan import TABLE, hidden, list_files
from graft.tasks.preprocess.walk import files_on_disk

from ..runtime.params import load_params
from ..tracking.create_store import store_made_meanwhile
from ..versioning import dvc
from ..versioning.dvc_config import cache_types
from ..versioning.exclusion import kept_from_dvc
from ..versioning.losses import require_no_loss
from .archives import is_archive, unpack
from .joining import holds_images, joined, known_classes
from .plan import plan_import, plan_sample_tar
from .planned import SYSTEM, Plan
from .raw_folder import one_at_a_time, put_back, refuse_a_link, replacing, same_file
from .sharding import merge_small, opened, size_for, sizes_of, write_shards
from .webdataset import is_sample_set

How = Literal["new", "replace", "add"]
"""What to do with images that are already in the project: refuse, replace them, or add to them."""

SAMPLE = files("graft") / "sample" / "fashion-mnist-2000.zip"

Take = Callable[[Path, Path, Path], None]
"""Brings a file of a source to a place: file, source, place."""


@dataclass(frozen=True)
class Way:
    """How images come into data/raw.

    Attributes:
        take: brings a file that stays one.
        link: whether hard links are wanted instead of copies.
        shards: the size of shards in MB, as the user asked for it; None if not.
    """

    take: Take
    link: bool = False
    shards: int | None = None


def import_images(
    source: Path,
    root: Path,
    how: How = "new",
    *,
    link: bool = False,
    force: bool = False,
    outside: bool = False,
    unwrap: bool = True,
    shards: int | None = None,
) -> dict[str, object]:
    """Brings `source` into data/raw and puts it under DVC; `source` itself is only read.

    Args:
        how: what to do if data/raw already holds images.
        link: hard links instead of copies, for sources on the same disk.
        force: with `replace`, also delete what DVC does not track.
        outside: also take files that links, or a table's rows, name outside the folder.
        unwrap: whether everything may lie in folders around the images.
        shards: the size of the shards, in MB, that the images become; None for files, or as the images there are.

    Raises:
        DataError: the source cannot be imported, or data/raw already holds images; data/raw is unchanged.
        GraftError: data/raw could not be written, or another import does not end; data/raw is unchanged.
    """
    source = source.resolve()
    paths = Paths(root)
    _refuse_own_images(source, paths)
    if link:
        _refuse_links_that_dvc_would_lock(root, source)
    with one_at_a_time(paths), store_made_meanwhile(root), _planned(source, paths, how, outside, unwrap) as plan:
        return _bring(plan, paths, how, _way(source, link, shards), force)


def preview_images(
    source: Path,
    root: Path,
    how: How = "new",
    *,
    force: bool = False,
    outside: bool = False,
    shards: int | None = None,
) -> dict[str, object]:
    """What `import_images` would do; nothing is written. An archive is unpacked into a temporary folder.

    Raises:
        DataError: the source cannot be imported, or not without losing images.
    """
    source, paths = source.resolve(), Paths(root)
    _refuse_own_images(source, paths)
    alone = one_at_a_time(paths) if is_archive(source) else nullcontext()
    with alone, _planned(source, paths, how, outside, unwrap=True) as plan:
        _refuse_nothing(plan)
        refuse_a_link(paths.raw)
        there = holds_images(paths.raw)
        _refuse_to_lose(paths, how, force, there)
        if there and how == "add":
            plan = joined(plan, paths.raw)
        if there and how == "new":
            held = "data/raw already holds images: `--add` adds to them, `--replace` replaces them"
            plan = replace(plan, warnings=(held, *plan.warnings))
        return {**plan.summary(), **_shards_needed(plan, paths.raw, how, shards)}


def _shards_needed(plan: Plan, raw: Path, how: How, asked: int | None) -> dict[str, object]:
    """The number of new shards, where images become members of shards."""
    size_mb = size_for(raw, asked)
    if plan.content is not None:
        return {"shards": plan.content.shards(size_mb or SIZE_MB)}
    if not size_mb:
        return {}
    new = _missing(plan.files, raw) if how == "add" else plan.files
    return {"shards": needed(sizes_of(new), size_mb)}


def _refuse_own_images(source: Path, paths: Paths) -> None:
    if source == paths.raw.resolve() or paths.raw.resolve() in source.parents:
        raise DataError(f"{source} is the project's own data/raw", todo="`dvc add data/raw` after changing it by hand")


@contextmanager
def _planned(source: Path, paths: Paths, how: How, outside: bool, unwrap: bool) -> Iterator[Plan]:
    """The plan, whose files exist until the block ends."""
    joining = how == "add" and holds_images(paths.raw)
    classes = known_classes(paths.raw) if joining else set()
    task = _task(paths)
    if source.suffix.lower() == ".tar" and source.is_file() and is_sample_set(source):
        yield replace(plan_sample_tar(source, task, joining, classes), joining=joining)
        return
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


def _bring(plan: Plan, paths: Paths, how: How, way: Way, force: bool) -> dict[str, object]:
    _refuse_nothing(plan)
    with ExitStack() as alone:
        alone.enter_context(kept_from_dvc(paths.root, "data/raw"))  # a stage may be reading the images
        plan = _replaced(plan, paths, how, way, force, alone.close)
    shards = shards_of(paths.raw)
    told = {} if shards is None else {"shards": len(shards.files) // 2}
    return {**plan.summary(), **told, "dvc": dvc.raw_hash(paths.root)}


def _replaced(plan: Plan, paths: Paths, how: How, way: Way, force: bool, let_dvc_in: Callable[[], None]) -> Plan:
    """Replaces data/raw and puts it under DVC; returns the plan, with the table of what was there before."""
    refuse_a_link(paths.raw)
    put_back(paths.raw)
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
    size_mb = size_for(paths.raw, way.shards)
    _refuse_links_into_shards(plan, way, size_mb)
    if there and how == "replace" and size_mb and not way.shards:
        plan = replace(plan, notes=(*plan.notes, "data/raw was in shards, and is again"))
    with replacing(paths, let_dvc_in, "the images could not be copied to") as folder:
        if there and how == "add":
            _keep(paths.raw, folder)
        done = _fill(folder, plan, way, size_mb)
    return done  # noqa: RET504  (the block may not swallow an error, but mypy cannot know)


def _refuse_links_into_shards(plan: Plan, way: Way, size_mb: int | None) -> None:
    if way.link and size_mb and plan.content is None:
        raise DataError(
            "`--link` keeps files, and here images become members of shards",
            got=f"shards of {size_mb} MB",
            todo="import without `--link`",
        )


def _refuse_nothing(plan: Plan) -> None:
    if not plan.files:
        raise DataError(
            f"{plan.source} has no images to import",
            got="a table without rows" if plan.form == "table" else "no files",
            todo="add images, or name another folder or table",
        )


def _keep(raw: Path, folder: Path) -> None:
    """Puts the files that are already there into the new folder: images, or shards and their indexes."""
    for name in files_on_disk(raw):
        same_file(raw / name, folder / name)


def _fill(folder: Path, plan: Plan, way: Way, size_mb: int | None) -> Plan:
    """Brings the images of a plan into the new folder, and the table beside them."""
    if plan.content is not None:
        plan = plan.content.fill(folder, plan, size_mb or SIZE_MB, link=way.link)
    elif size_mb:
        write_shards(folder, _missing(plan.files, folder), plan.source, size_mb)
    else:
        _fill_files(folder, plan, way.take)
    if size_mb:
        merge_small(folder, size_mb)
    if size_mb or plan.content is not None:
        list_files(folder)  # which refuses shards that cannot be read, and names that stand twice
    if plan.table is not None:
        with whole_file(folder / TABLE) as part:  # never through a hard link into the old one
            plan.table.to_csv(part, index=False)
    return plan


def _fill_files(folder: Path, plan: Plan, take: Take) -> None:
    with progress("import: copying", len(plan.files), "files") as bar:
        for name, file in plan.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            take(file, plan.source, place)
            bar.add()


def _missing(files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Without those that a folder has already, under the same name with the same content."""
    there = {*list_files(folder)}
    return {place: file for place, file in files.items() if place not in there}


def _refuse_to_lose(paths: Paths, how: How, force: bool, there: bool) -> None:
    if there and how == "replace" and not force:
        _refuse_to_delete(paths)
    if there and how == "add":
        require_no_loss(paths.root)  # `dvc add` would list only what is left


def _refuse_to_delete(paths: Paths) -> None:
    """Every file that would be deleted must be one that DVC can restore."""
    kept = dvc.raw_files(paths.root)
    files = [file for file in files_on_disk(paths.raw) if not hidden(file)]
    lost = [file for file in files if kept.get(file) != md5(paths.raw / file)]
    if lost:
        raise DataError(
            f"{paths.raw} holds files that DVC does not track: replacing them would lose them",
            got=f"{len(lost):,} files: {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}",
            todo="`dvc add data/raw` keeps them in DVC's cache; `--force` deletes them",
        )


def _way(source: Path, link: bool, shards: int | None) -> Way:
    """How files come to their places. What an archive held is the project's own already."""
    if source.is_file() and is_archive(source):
        return Way(lambda file, _, place: same_file(file, place), False, shards)
    return Way(_link if link else _copy, link, shards)


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
    with opened(file, source) as (content, _), place.open("wb") as target:
        shutil.copyfileobj(content, target, 1 << 20)
