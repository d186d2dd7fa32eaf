"""`graft shard` and `graft unshard`: the images of data/raw as members of shards, or as files again. Each undoes the
other: names and bytes stay, and so do splits and cached features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import progress
from graft.tasks.common.images.shard_size import SIZE_MB
from graft.tasks.common.images.shard_writer import AT_ONCE
from graft.tasks.common.images.shards import Member, shards_of
from graft.tasks.preprocess.layouts import hidden, may_be_image
from graft.tasks.preprocess.scan import list_files
from graft.tasks.preprocess.walk import files_on_disk, walk

from ..versioning import dvc
from ..versioning.exclusion import kept_from_dvc
from ..versioning.losses import require_no_loss
from .joining import holds_images
from .raw_folder import one_at_a_time, put_back, refuse_a_link, refuse_too_large, replacing, same_file
from .sharding import members_of, our_shards, refuse_damaged, shard_size, write_shards

SAME = "names and bytes, so splits and cached features stay; the next `graft repro` lists the images again"
"""What a conversion does not change."""


def shard_images(root: Path, size_mb: int = SIZE_MB) -> dict[str, object]:
    """Makes the images of data/raw members of shards, if they are not; tables and other files stay beside them.

    Args:
        size_mb: the largest size of a shard, in millions of bytes.

    Raises:
        DataError: there are no images, or one of them cannot be read; data/raw is unchanged.
        GraftError: data/raw could not be written; it is unchanged.
    """
    paths = Paths(root)
    with _alone(paths) as let_dvc_in:
        there = shards_of(paths.raw)
        images, others = _sorted_out(paths.raw, frozenset() if there is None else there.files)
        if not _is_done(paths.raw, images, size_mb):
            with replacing(paths, let_dvc_in, "the shards could not be written to") as folder:
                _check(folder, write_shards(folder, images, paths.raw, size_mb))
                for name in others:
                    same_file(paths.raw / name, folder / name)
    return _told(paths, len(images), len(others))


def unshard_images(root: Path) -> dict[str, object]:
    """Makes the members of all shards files again.

    Raises:
        DataError: a shard is damaged; data/raw is unchanged.
        GraftError: data/raw could not be written; it is unchanged.
    """
    paths = Paths(root)
    with _alone(paths) as let_dvc_in:
        there = shards_of(paths.raw)
        tars = [] if there is None else sorted(name for name in there.files if name.endswith(".tar"))
        others = [name for name in files_on_disk(paths.raw) if there is None or name not in there.files]
        if there is not None:
            with replacing(paths, let_dvc_in, "the images could not be written to") as folder:
                refuse_too_large(folder, sum((paths.raw / tar).stat().st_size for tar in tars), len(there))
                for name in others:
                    same_file(paths.raw / name, folder / name)
                _unpack([paths.raw / tar for tar in tars], folder, len(there))
    return _told(paths, 0 if there is None else len(there), len(others))


@contextmanager
def _alone(paths: Paths) -> Iterator[Callable[[], None]]:
    """Keeps imports and DVC away from data/raw; yields what lets DVC in again.

    Raises:
        DataError: there are no images, or some are lost.
    """
    with one_at_a_time(paths), ExitStack() as alone:
        alone.enter_context(kept_from_dvc(paths.root, "data/raw"))
        refuse_a_link(paths.raw)
        put_back(paths.raw)
        if not holds_images(paths.raw):
            raise DataError(
                f"{paths.raw} holds no images", todo="run `graft import PATH --shards`, or `dvc pull` first"
            )
        require_no_loss(paths.root)  # `dvc add` would list only what is left
        yield alone.close


def _sorted_out(raw: Path, of_shards: frozenset[str]) -> tuple[dict[str, Path], list[str]]:
    """(image -> its file, without links, or its name if it is a member; the files that stay files)."""
    real = walk(raw, outside=True).files
    images = {name: real.get(name, raw / name) for name in list_files(raw) if may_be_image(name) and not hidden(name)}
    return images, [name for name in files_on_disk(raw) if name not in of_shards and name not in images]


def _is_done(raw: Path, images: dict[str, Path], size_mb: int) -> bool:
    """Whether all images are in shards of this size already, which Graft has written."""
    there = shards_of(raw)
    if there is None or len(there) != len(images):
        return False
    return all(shard_size(raw / name) == size_mb for name in there.files if name.endswith(".tar"))


def _check(folder: Path, written: dict[str, str]) -> None:
    """Whether the shards of a folder hold what was read, by their indexes.

    Raises:
        DataError: they do not.
    """
    found = {}
    with progress("checking shards", len(written), "images") as bar:
        for shard in our_shards(folder):
            with shard.open("rb") as file:
                for name, member in members_of(shard):
                    found[name] = _copied(file, member)
                    bar.add()
    wrong = [name for name in {**written, **found} if written.get(name) != found.get(name)]
    if wrong:
        raise DataError(
            "the new shards do not hold what was read from data/raw, which is unchanged",
            got=f"{len(wrong):,} images: {', '.join(wrong[:5])}",
            todo="check the disk and the memory of this machine, then try again",
        )


def _unpack(shards: list[Path], folder: Path, images: int) -> None:
    with progress("unpacking shards", images, "images") as bar:
        for shard in shards:
            with shard.open("rb") as file:
                for name, member in members_of(shard):
                    place = folder / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with place.open("xb") as target:
                        refuse_damaged(name, member, _copied(file, member, target))
                    bar.add()


def _copied(shard: BinaryIO, member: Member, target: BinaryIO | None = None) -> str:
    """The md5 of a member, whose bytes go to `target`."""
    digest, left = hashlib.md5(usedforsecurity=False), member.size
    shard.seek(member.offset)
    while left and (piece := shard.read(min(left, AT_ONCE))):
        digest.update(piece)
        left -= len(piece)
        if target is not None:
            target.write(piece)
    return digest.hexdigest()


def _told(paths: Paths, images: int, others: int) -> dict[str, object]:
    there = shards_of(paths.raw)
    shards = 0 if there is None else len(there.files) // 2
    return {
        "images": images or sum(may_be_image(name) for name in list_files(paths.raw)),
        "shards": shards,
        "files": others if shards else len(files_on_disk(paths.raw)),
        "unchanged": SAME,
        "dvc": dvc.raw_hash(paths.root),
    }
