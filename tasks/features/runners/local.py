"""Features computed in this process: each image is decoded once for all backbones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import numpy.typing as npt

from ...common.backbones.spec import Spec
from ...common.core.progress import progress, say
from ...common.engines.one_decode import Part, stream_all
from ...common.feature_cache.thumbnails import thumbnail
from ...common.images.decode import Picture, Pixels
from ..views import augmentation
from ..work import Effort, Eye, Mask, Source, account, announce


def extract(eyes: list[Eye], wanted_EM: Mask, source: Source, effort: Effort) -> None:
    """The runner of one machine, see `Runner`."""
    for line in announce(eyes, wanted_EM):
        say(line)
    started = time.perf_counter()
    with progress("features: extracting", int(np.count_nonzero(wanted_EM))) as bar:
        compute(eyes, wanted_EM, source, Loader([eye.spec for eye in eyes], source), bar.add)
    account(eyes, wanted_EM, effort)
    effort.seconds += time.perf_counter() - started
    effort.nodes = max(effort.nodes, 1)


def compute(eyes: Sequence[Eye], wanted_EM: Mask, source: Source, loader: Loader, done: Callable[[int], None]) -> None:
    """Adds the features of these items to the caches, and the images' thumbnails, for the audit, to theirs; all are on
    disk when it ends, however it ends.

    Args:
        done: called with the number of items that have just been added.
    """
    items, small = source.items, source.small
    parts = [Part(eye.extractor.build(), eye.spec.transform, wanted_M) for eye, wanted_M in zip(eyes, wanted_EM)]
    with ExitStack() as caches:
        for cache in (small, *(eye.cache for eye in eyes)):
            caches.enter_context(cache)
        for number, places, batch_BD in stream_all(parts, loader.decode, loader.crop, source.params.threads or None):
            eyes[number].add(items.ids[places], batch_BD)
            ready = [place for place in places.tolist() if place in loader.made]
            if ready:
                small.add(items.ids[ready], np.stack([loader.made.pop(place) for place in ready]))
            done(len(batch_BD))


class Loader:
    """Decodes items and crops them for each backbone; `made` has the thumbnails that are not stored yet."""

    def __init__(self, specs: Sequence[Spec], source: Source) -> None:
        self.made: dict[int, npt.NDArray[np.float32]] = {}
        self._specs, self._items = specs, source.items
        self._files = [source.raw / path for path in source.manifest["path"]]
        self._image_ids = list(source.manifest["image_id"])
        self._expected: list[str | None] = [*self._image_ids]
        self._lacks_small = ~source.small.has(source.items.ids)
        params = source.params
        self._reading = source.reading
        views = source.items.views
        self._augments = [augmentation(params, spec.transform, source.reading) for spec in specs] if views else []

    @contextmanager
    def decode(self, place: int) -> Iterator[Picture]:
        row = self._items.rows[place]
        with self._reading.file(self._files[row], self._expected[row]) as picture:
            if self._lacks_small[place] and self._items.numbers[place] == 0:
                self.made[place] = thumbnail(picture)
            yield picture

    def crop(self, picture: Picture, place: int, number: int) -> Pixels:
        view = int(self._items.numbers[place])
        if not view:
            return self._specs[number].transform(*picture)
        augment = self._augments[number]
        return augment.view(augment.resize(picture), self._image_ids[self._items.rows[place]], view)
