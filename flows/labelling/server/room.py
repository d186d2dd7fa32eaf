"""All that the label page shows of one project: the images, their pictures, their neighbours, and the desk."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from graft.tasks.common.core.errors import DataError
from graft.tasks.common.core.paths import Paths
from graft.tasks.common.core.progress import say
from graft.tasks.common.data.task import BETWEEN, GOOD, Task
from graft.tasks.common.images.contact_sheet import visible
from graft.tasks.common.images.decode import pixels_of
from graft.tasks.common.images.reading import Reading
from graft.tasks.preprocess.label_history import read_answers

from ...runtime.params import load_params
from ..choice import next_images, reading_of
from ..current import Labels, read_labels_now
from ..desk import Desk
from ..queues import Item, answered_since_audit, audit_items, pool_items
from .neighbours import Neighbours

BATCH = 200
"""Images of the pool that are chosen at a time."""

LARGE, SMALL = 1024, 192
"""Pixels of the longer side of a picture, and of a thumbnail."""

NEIGHBOURS = 6


@dataclass(frozen=True)
class Neighbour:
    image_id: str
    label: str
    cosine: float


class Room:
    """Raises:
    DataError: the project's images or labels cannot be read.
    """

    def __init__(self, root: Path, twice: float = 0.0) -> None:
        self.root, self.paths = root, Paths(root)
        params = load_params(self.paths.params)
        self.found: Labels = read_labels_now(root)
        self.task: Task = self.found.task
        self._reading: Reading = reading_of(params, self.paths)
        self._files, self._more = self._list_files(), set[str]()
        known = answered_since_audit(root, read_answers(self.paths.labels))
        self.desk = Desk(self.paths.labels, audit_items(root, self.found), self.found.of, known, twice)
        self._near = Neighbours.of(self.paths)
        self._choosing = threading.Lock()
        self._choose()
        self.picture = lru_cache(maxsize=256)(self._picture)

    @property
    def classes(self) -> list[str]:
        """All labels that there are, those that were given on the page too."""
        labels = {str(label) for label in self.found.data["label"].dropna()}
        labels |= {one.label for one in self.found.standing.values() if one.label} | self._more
        if self.task == "multilabel":
            labels = {name for label in labels for name in label.split(BETWEEN) if name}
        if self.task == "anomaly":
            labels |= {GOOD}
        return [] if self.task == "regression" else sorted(labels)

    def next(self, queue: str, who: str, count: int) -> list[Item]:
        """The next images of a queue; chooses more of the pool when those that were chosen are answered."""
        items = self.desk.next(queue, who, count)
        if not items and queue in ("pool", "unsure") and self._choose():
            items = self.desk.next(queue, who, count)
        return items

    def grid(self, queue: str, who: str, guess: str, count: int) -> list[Item]:
        """Images that the model takes for one class, to be confirmed together."""
        items = self.desk.of_guess(queue, guess, who, count)
        if not items and queue in ("pool", "unsure") and self._choose():
            items = self.desk.of_guess(queue, guess, who, count)
        return items

    def classes_with(self, label: str) -> list[str]:
        """`classes`, and from now on those of this label."""
        if self.task not in ("regression", "reconstruction") and not label.startswith("!"):
            self._more |= set(label.split(BETWEEN) if self.task == "multilabel" else [label]) - {""}
        return self.classes

    def neighbours(self, image_id: str) -> list[Neighbour]:
        """The images of the data that are most alike; none before the first run."""
        near = self._near(image_id, NEIGHBOURS) if self._near else []
        return [Neighbour(other, self.desk.label(other), cosine) for other, cosine in near if self.has(other)]

    def has(self, image_id: str) -> bool:
        return image_id in self._files

    def _picture(self, image_id: str, side: int) -> bytes:
        """A JPEG of at most this many pixels a side.

        Raises:
            DataError: the file has been removed, changed or damaged.
        """
        with self._reading.file(self._files[image_id], image_id) as picture:
            image = visible(pixels_of([one.copy() for one in picture]))
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        written = io.BytesIO()
        image.save(written, "JPEG", quality=88)
        return written.getvalue()

    def _list_files(self) -> dict[str, Path]:
        places = [(self.found.data, self.paths.raw), (self.found.pool, self.paths.pool)]
        return {
            image_id: folder / path
            for table, folder in places
            for image_id, path in zip(table["image_id"], table["path"], strict=True)
        }

    def _choose(self) -> bool:
        """Puts more images of the pool into their queues; whether there were any."""
        with self._choosing:
            if not len(self.found.waiting):
                return False
            try:
                asked = next_images(self.root, BATCH)
            except DataError as error:
                say(f"label: {error.what}")
                return False
            before = sum(self.desk.left().values())
            self.desk.add(pool_items(asked.table, self.found.pool))
            return sum(self.desk.left().values()) > before


def facts(items: Sequence[Item], room: Room) -> list[dict[str, Any]]:
    """The images as the page gets them."""
    return [
        {
            "image_id": item.image_id,
            "path": item.path,
            "queue": item.queue,
            "why": item.why,
            "label": room.desk.label(item.image_id),
            "guess": item.guess,
            "probability": item.probability,
            "beside": None if item.beside is None else {"image_id": item.beside[0], "label": item.beside[1]},
        }
        for item in items
    ]
