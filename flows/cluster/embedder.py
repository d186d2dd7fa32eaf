"""The workers of a node: they fetch the images of a block, compute their features, and leave them as segments in the
exchange."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.tasks.common.core.errors import GraftError, TransientError
from graft.tasks.common.core.files import json_digest, sha256, shared_folder
from graft.tasks.common.core.paths import Paths

from .exchange import Folder, Place, open_place
from .fetch import Fetcher, NodeCache, NoRoom, Wanted
from .pool import AGAIN, FATAL, REFUSED, Answer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CACHE = "GRAFT_NODE_CACHE"
"""The variable with the folder for fetched images on a node."""


def node_folder() -> Path:
    """Where a node keeps what it has fetched: $GRAFT_NODE_CACHE, or a folder in the user's cache."""
    chosen = os.environ.get(CACHE)
    return (
        Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graft" / "node"
    )


class Node(ABC):
    """A Ray actor; its methods may run at the same time, but one block is computed at once.

    Args:
        job: what the submitter has written.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._computing = threading.Lock()

    def prepare(self) -> Answer:
        """{} or a refusal: whether this node computes what the submitter would compute."""
        from graft.tasks.environment import prepare_process

        prepare_process()
        try:
            self._open_node()
            self._open(node_folder())
        except TransientError as error:
            return {AGAIN: _in_one_line(error)}
        except (GraftError, ImportError, OSError) as error:
            return {REFUSED: _in_one_line(error)}
        return {}

    def _open_node(self) -> None:
        from graft.tasks.features.runners.pinned import require_versions

        require_versions(self._job["versions"])
        folder = node_folder()
        self._exchange = open_place(Place(**self._job["exchange"]))
        self._images = NodeCache(folder / "images", int(self._job["node_cache_gb"] * 1e9))
        self._remote = open_place(Place(**self._job["remote"]))
        self._fetcher = Fetcher(self._remote, self._images)
        self._scratch = folder / "scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)

    def work(self, number: int, block: pa.Table) -> Answer:
        """The report of a block: `segments` (names in the exchange), `rejected` (path -> reason) and `computed`."""
        try:
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix=f"{number}-") as name:
                return self._work(block.to_pandas(), Path(name))
        except NoRoom as error:
            return {REFUSED: _in_one_line(error)}
        except TransientError as error:
            return {AGAIN: _in_one_line(error)}
        except GraftError as error:
            return {FATAL: str(error)}
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            return {REFUSED if full else AGAIN: _in_one_line(error)}

    @abstractmethod
    def _open(self, folder: Path) -> None:
        """Args:
        folder: that this node keeps.
        """

    @abstractmethod
    def _work(self, block: pd.DataFrame, place: Path) -> Answer:
        """Args:
        place: an empty folder.
        """

    def _put(self, cache: Path) -> list[str]:
        """Puts the segments of a project's cache into the exchange; their names there."""
        segments = [file.relative_to(cache).as_posix() for file in sorted(cache.glob("*/*/*.safetensors"))]
        kept = [name for name in segments if self._job["small"] or not name.startswith("thumbnails/")]
        for name in kept:
            self._exchange.put_file(cache / name, name)
        return kept


class Embedder(Node):
    """Of the stage `features`."""

    def _open(self, folder: Path) -> None:
        from graft.tasks.features.runners.blocks import BlockRunner

        files = [files_of(eye, self._exchange, folder / "blobs") for eye in self._job["eyes"]]
        self._runner = BlockRunner(self._job["params"], self._job["reading"], self._job["eyes"], files)

    def _work(self, block: pd.DataFrame, place: Path) -> Answer:
        missing = self._fetcher.bring(wanted_in(block), place / "images")
        with self._computing:
            rejected = self._runner.compute(block, place / "images", missing, place)
        segments = self._put(Paths(place).cache)
        computed = int(block.filter(like="wanted_").to_numpy(bool).sum()) - len(rejected)
        return {"segments": segments, "rejected": rejected, "computed": computed}


def wanted_in(block: pd.DataFrame) -> list[Wanted]:
    columns = (block[name] for name in ("image_id", "size", "stored", "offset"))
    return [Wanted(md5, int(size), stored, int(offset)) for md5, size, stored, offset in zip(*columns, strict=True)]


def files_of(eye: Mapping[str, Any], exchange: Folder, folder: Path) -> list[Path]:
    """The files of a backbone, from the exchange unless they are here already; verified.

    Raises:
        GraftError: the exchange does not have them.
    """
    target = folder / json_digest(eye["blobs"])
    files = [target / name for name in eye["files"]]
    if not _are_whole(files, eye["blobs"]):
        shutil.rmtree(target, ignore_errors=True)
        with shared_folder(target) as part:
            for name, digest in zip(eye["files"], eye["blobs"], strict=True):
                exchange.get_file(f"blobs/{digest}", part / name)
    if not _are_whole(files, eye["blobs"]):
        raise GraftError("the exchange gave other files of a backbone than those that were put there")
    return files


def _are_whole(files: list[Path], digests: list[str]) -> bool:
    return all(file.is_file() and sha256(file) == known for file, known in zip(files, digests, strict=True))


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
