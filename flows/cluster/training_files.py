"""What a training on several machines has at the exchange: its order, the weights, the maps and its checkpoints."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from graft.tasks.common.core.files import read_json, whole_file, write_json
from graft.tasks.common.feature_cache.segments import FeatureCache
from graft.tasks.finetune.checkpoint import Course, read_course
from graft.tasks.finetune.order import Maps, Order

from .exchange import Folder
from .fetch import Wanted

KEPT = 2
"""Checkpoints that are kept: one that is being read must not be removed by the next."""

OLD = 7 * 24 * 3600.0
"""Seconds for which a node keeps maps that it does not use."""

SEGMENTS, IMAGES = "segments.json", "images.parquet"


class TrainingFiles:
    """Of one training, in a folder named after its checkpoint: another submitter of the same training finds them.

    Args:
        exchange: has the weights among its `blobs`, and the maps where the feature cache has them.
    """

    def __init__(self, exchange: Folder, name: str) -> None:
        self._exchange = exchange
        self._folder = exchange.below(f"finetune/{name}")
        self._order, self._checkpoints = self._folder.below("order"), self._folder.below("checkpoints")

    def give(self, order: Order, images: pd.DataFrame | None) -> None:
        """Puts all that the nodes need; weights and maps that are there already stay.

        Args:
            images: where those of the training are, columns as the fields of `Wanted`; none if it reads maps.
        """
        if order.weights.file is not None and not self._exchange.has(f"blobs/{order.weights.sha256}"):
            self._exchange.put_file(order.weights.file, f"blobs/{order.weights.sha256}")
        if order.checkpoint.is_file():
            self.give_checkpoint(order.checkpoint, read_course(order.checkpoint))
        with TemporaryDirectory() as place:
            folder = Path(place)
            order.save(folder)
            write_json(folder / SEGMENTS, self._give_maps(order.maps) if order.maps else [])
            if images is not None:
                images.to_parquet(folder / IMAGES)
            for file in sorted(folder.iterdir()):
                self._order.put_file(file, file.name)

    def _give_maps(self, maps: Maps) -> list[str]:
        cache = FeatureCache(maps.folder, int(maps.fingerprint["dimension"]), "float16")
        segments, place = cache.segments_of(maps.ids), self._exchange.below(f"features/{maps.folder.name}")
        there = set(place.names())
        for segment in segments:
            if segment.name not in there:
                place.put_file(segment, segment.name)
        return [segment.name for segment in segments]

    def take(self, project: Path, node: Path) -> tuple[Order, list[Wanted]]:
        """The order, with all that it needs but the images, and where these are.

        Args:
            project: a folder for the order and the checkpoints.
            node: a folder for what trainings have in common; all processes of a node may use it at once.

        Raises:
            FileNotFoundError: the exchange does not have it.
        """
        folder = project / "order"
        folder.mkdir(parents=True)
        for name in self._order.names():
            self._order.get_file(name, folder / name)
        facts = read_json(folder / "order.json")
        weights, maps = facts["weights"][2], facts["maps"]
        file = self._take_once("blobs", weights, node / "blobs") if weights else None
        cache = node / "maps" / maps["digest"] if maps else node
        _forget_old(node / "maps", cache)
        for name in read_json(folder / SEGMENTS):
            self._take_once(f"features/{maps['digest']}", name, cache)
        return Order.load(folder, file, project / "checkpoints", cache), images_in(folder / IMAGES)

    def _take_once(self, place: str, name: str, folder: Path) -> Path:
        """Names are hashes of contents, so a file that is there is the right one."""
        if not (folder / name).is_file():
            with whole_file(folder / name) as part:
                self._exchange.get_file(f"{place}/{name}", part)
        return folder / name

    def give_checkpoint(self, file: Path, course: Course) -> None:
        """Puts it, and removes older ones."""
        self._checkpoints.put_file(file, f"{len(course.rows):06}-{course.step:09}")
        for old in self.checkpoints()[:-KEPT]:
            self._checkpoints.below(old).remove()

    def checkpoints(self) -> list[str]:
        """Their names, the oldest first: epochs and steps that are done."""
        return [name for name in self._checkpoints.names() if not name.endswith(".part")]

    def take_checkpoint(self, name: str, file: Path) -> None:
        with whole_file(file) as part:
            self._checkpoints.get_file(name, part)

    def remove(self) -> None:
        """All but weights and maps, which other trainings use."""
        self._folder.remove()


def _forget_old(maps: Path, used: Path) -> None:
    """Maps that no training of this node has used for long."""
    used.mkdir(parents=True, exist_ok=True)
    os.utime(used)
    for folder in maps.glob("*"):
        if time.time() - folder.stat().st_mtime > OLD:
            shutil.rmtree(folder, ignore_errors=True)


def images_in(file: Path) -> list[Wanted]:
    if not file.is_file():
        return []
    rows: list[dict[str, Any]] = pd.read_parquet(file).to_dict("records")
    return [Wanted(**row) for row in rows]
