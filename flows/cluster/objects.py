"""Where the images lie in the DVC remote, and that they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from graft.tasks.common.core.errors import DataError, TransientError
from graft.tasks.common.images.reading import RESTORE
from graft.tasks.common.images.shards import shards_of

from ..versioning.dvc import listing_of, raw_hash
from .exchange import open_place, patiently, place_of_remote
from .fetch import OBJECTS, THREADS
from .jobs import Shared

PUSHED = 50_000
"""Objects whose presence in the remote is looked up at once."""


class Objects:
    """DVC's objects that hold the images of data/raw.

    Raises:
        DataError: data/raw is not tracked by DVC, which could not push it.
    """

    def __init__(self, raw: Path, root: Path) -> None:
        tracked = raw_hash(root)
        if not tracked:
            raise DataError(
                "data/raw is not tracked by DVC, so nodes cannot fetch its images",
                todo="run `dvc add data/raw`, or set `compute.engine: local`",
            )
        self._raw, self._shards = raw, shards_of(raw)
        names = self._shards.files if self._shards else frozenset()
        self._tars = (
            {name: md5 for name, md5 in (listing_of(root, tracked) or {}).items() if name in names} if names else {}
        )

    def of(self, manifest: pd.DataFrame) -> dict[str, Any]:
        """For each image its `size`, the object that holds it (`stored`), and its `offset` there.

        Raises:
            DataError: there are shards that DVC does not know.
        """
        own = manifest["image_id"].to_numpy()
        if self._shards is None:
            return {
                "stored": own,
                "offset": 0,
                "size": [self._size(path) for path in manifest["path"]],
            }
        members = [self._shards.find(path) for path in manifest["path"]]
        unknown = {one.file.name for one in members if one is not None} - self._tars.keys()
        if unknown:
            raise DataError(
                "data/raw is not what data/raw.dvc says",
                got=f"{len(unknown)} shards that DVC does not know: {min(unknown)}",
                todo="run `dvc add data/raw`",
            )
        return {
            "stored": [self._tars[one.file.name] if one else itself for one, itself in zip(members, own, strict=True)],
            "offset": [one.offset if one else 0 for one in members],
            "size": [
                one.size if one else self._size(path) for one, path in zip(members, manifest["path"], strict=True)
            ],
        }

    def _size(self, path: str) -> int:
        """Raises:
        DataError: the file has been removed since it was checked.
        """
        try:
            return (self._raw / path).stat().st_size
        except OSError as error:
            raise DataError(f"{self._raw / path} cannot be read", got=str(error), todo=RESTORE) from error


def push(root: Path, remote: str, objects: Iterable[str]) -> int:
    """Pushes those of DVC's objects that the remote lacks; returns how many.

    Raises:
        TransientError: the remote does not answer.
    """
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    pushed, left = 0, list(dict.fromkeys(objects))
    with Repo(str(root)) as repo:
        for start in range(0, len(left), PUSHED):
            part = [HashInfo("md5", one) for one in left[start : start + PUSHED]]
            result = patiently(partial(repo.cloud.push, part, remote=remote), f"the DVC remote `{remote}`")
            pushed += len(result.transferred)
            if result.failed:
                raise _unfinished(remote, len(result.failed))
    return pushed


def _unfinished(remote: str, failed: int) -> TransientError:
    return TransientError(
        f"images that nodes need could not be pushed to the DVC remote `{remote}`",
        got=f"{failed:,} files",
        todo="run `dvc push data/raw` to see more",
    )


def in_remote(shared: Shared, names: Sequence[str]) -> set[str]:
    """Those of DVC's objects, by their md5, that the remote holds.

    Raises:
        TransientError: it does not answer.
    """
    objects = open_place(place_of_remote(shared.config, shared.remote), shared.config).below(OBJECTS)
    with ThreadPoolExecutor(THREADS, "look up") as pool:
        found = pool.map(lambda md5: objects.has(f"{md5[:2]}/{md5[2:]}"), names)
        return {md5 for md5, there in zip(names, found, strict=True) if there}
