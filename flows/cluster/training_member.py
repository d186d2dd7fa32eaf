"""One process of a training on several machines; runs on a node."""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from graft.tasks.common.core.errors import DataError, TransientError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.images.reading import RESTORE
from graft.tasks.finetune.checkpoint import Course
from graft.tasks.finetune.order import Order
from graft.tasks.finetune.session import open_order

from .embedder import node_folder
from .exchange import Place, open_place
from .fetch import Fetcher, NodeCache, Wanted
from .training_files import TrainingFiles

SCRATCH = "finetune-"
"""How the folder of a process begins; the process follows."""

NEAR = 512
"""Images that are in the process' own folder at once; the node's cache has more."""


def train(job: dict[str, Any], checkpoint: str) -> None:
    """Trains to the end.

    Args:
        job: what the submitter has written, see `training.RayTraining`.
        checkpoint: where it goes on, or empty: the same for all processes.
    """
    node = node_folder()
    (node / "scratch").mkdir(parents=True, exist_ok=True)
    files = TrainingFiles(open_place(Place(**job["exchange"])), job["training"])
    _remove_left(node / "scratch")
    with TemporaryDirectory(dir=node / "scratch", prefix=f"{SCRATCH}{me()}-") as folder:
        paths = Paths(Path(folder))
        order, images = files.take(paths.root, node)
        if checkpoint:
            files.take_checkpoint(checkpoint, order.checkpoint)
        cache = NodeCache(node / "images", int(job["node_cache_gb"] * 1e9))
        file_of = NodeImages(images, Fetcher(open_place(Place(**job["remote"])), cache), paths.tmp / "images")
        open_order(order, paths, file_of).run(order.checkpoint, order.seconds, saved=_publisher(files, order))


def me(pid: int | None = None) -> str:
    """A process of this node, by its number and its start."""
    process = psutil.Process(pid)
    return f"{process.pid}-{process.create_time():.0f}"


def _remove_left(scratch: Path) -> None:
    """The folders of processes that were killed."""
    for folder in scratch.glob(f"{SCRATCH}*"):
        owner = folder.name.removeprefix(SCRATCH).rpartition("-")[0]
        try:
            is_left = me(int(owner.partition("-")[0])) != owner
        except psutil.NoSuchProcess:
            is_left = True
        if is_left:
            shutil.rmtree(folder, ignore_errors=True)


def _publisher(files: TrainingFiles, order: Order) -> Callable[[Course], None]:
    """Puts a checkpoint at the exchange where the training ends, and otherwise every `finetune.checkpoint_every`."""
    put = time.monotonic()

    def publish(course: Course) -> None:
        nonlocal put
        if course.ended or time.monotonic() - put >= 60 * order.params.checkpoint_every:
            files.give_checkpoint(order.checkpoint, course)
            put = time.monotonic()

    return publish


class NodeImages:
    """Images of a training, fetched when they are first read: `file_of` of a `Place`."""

    def __init__(self, images: Iterable[Wanted], fetcher: Fetcher, folder: Path) -> None:
        self._wanted = {image.md5: image for image in images}
        self._fetcher, self._folder = fetcher, folder
        self._near: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, path: str, image_id: str) -> Path:
        """Raises:
        DataError: the DVC remote does not have it, or has it damaged.
        TransientError: it should not be needed, because the training reads maps.
        """
        file = self._folder / image_id
        if not file.is_file():
            if image_id not in self._wanted:
                raise TransientError(f"the exchange gave no sound map of {path}", todo="run again")
            missing = self._fetcher.bring([self._wanted[image_id]], self._folder)
            if missing:
                raise DataError(f"{path} cannot be read on a node", got=missing[image_id], todo=RESTORE)
        self._leave_near(image_id)
        return file

    def _leave_near(self, image_id: str) -> None:
        with self._lock:
            self._near[image_id] = None
            self._near.move_to_end(image_id)
            while len(self._near) > NEAR:
                (self._folder / self._near.popitem(last=False)[0]).unlink(missing_ok=True)
