"""`graft predict`: what a model says about files, at the speed at which features are computed. B images in a block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graft.tasks.common.core.blocks import blocks
from graft.tasks.common.core.cores import cores
from graft.tasks.common.core.errors import DataError
from graft.tasks.common.engines.openvino import Features
from graft.tasks.common.feature_cache.segments import ids_of
from graft.tasks.common.images.decode import Picture
from graft.tasks.common.images.reading import Reading, content_of
from graft.tasks.common.images.unreadable import UnreadableImage, in_words
from graft.tasks.register.serving import ImageClassifier

from .known import KnownFeatures
from .sources import Named

BLOCK = 4096
"""Images that are looked up in the cache together, at most."""

GROUP = 256
"""Images that are answered together: answering each batch of the network took a third of the speed, because the threads
of its matrix products compete with those of the network."""


@dataclass(frozen=True)
class Answer:
    """What the model says about a file.

    Attributes:
        found: see `ImageClassifier.predict`; empty if the file could not be read.
        error: why it could not.
        map_HW: see `ImageClassifier.heat`; None unless asked for.
    """

    source: Named
    found: dict[str, Any]
    error: str = ""
    map_HW: npt.NDArray[np.float32] | None = None


def predict(
    classifier: ImageClassifier,
    files: Sequence[Named],
    known: KnownFeatures | None = None,
    done: Callable[[int], Any] = lambda images: None,
    *,
    maps: bool = False,
) -> Iterator[Answer]:
    """One answer per file, in order and as soon as it is there; a file that cannot be read does not stop the others.

    Args:
        known: features that need not be computed; those that are computed are added.
        done: is told how many more files have been answered.
        maps: also say where images are anomalous; for the task anomaly alone.
    """
    for rows in blocks(len(files), min(BLOCK, classifier.block)):
        for answers in _Block(classifier, files[rows], known, maps).answers():
            done(len(answers))
            yield from answers


class _Block:
    def __init__(
        self, classifier: ImageClassifier, files: Sequence[Named], known: KnownFeatures | None, maps: bool
    ) -> None:
        self._classifier, self._files, self._known, self._maps = classifier, files, known, maps
        self._reading: Reading = classifier.eyes.reading
        self._features_BD = np.zeros((len(files), classifier.dimension), np.float32)
        self._ready_B = np.zeros(len(files), np.bool_)
        self._errors: dict[int, str] = {}
        self._md5: dict[int, str] = {}

    def answers(self) -> Iterator[list[Answer]]:
        """In order, some at a time."""
        if self._known is not None and len(self._known):
            self._look_up(self._known)
        sent = 0
        missing = np.flatnonzero(~self._ready_B)
        if not len(missing):
            yield self._answered(0, len(self._files))
            return
        for places, features in self._classifier.eyes.stream(lambda i: self._picture(int(missing[i])), len(missing)):
            self._take(missing[places], features)
            ready = sent + int(np.argmin(np.append(self._ready_B[sent:], False)))
            if ready - sent >= GROUP or ready == len(self._files):
                yield self._answered(sent, ready)
                sent = ready

    def _look_up(self, known: KnownFeatures) -> None:
        with ThreadPoolExecutor(cores()) as pool:
            hashed = [place for place, found in enumerate(pool.map(self._hash, range(len(self._files)))) if found]
        self._ready_B[list(self._errors)] = True
        features = np.empty((len(hashed), self._features_BD.shape[1]), np.float32)
        found = known.fill(features, ids_of([self._md5[place] for place in hashed]))
        places = np.array(hashed, np.int64)[found]
        self._features_BD[places], self._ready_B[places] = features[found], True

    def _hash(self, place: int) -> bool:
        """Whether the file can be read."""
        with ExitStack() as held:
            return self._content(place, held) is not None

    def _content(self, place: int, held: ExitStack) -> bytes | None:
        """The bytes of a file; None, and an entry in the errors, if it cannot be read."""
        try:
            content = held.enter_context(content_of(self._files[place].file, self._reading.limits))
        except (OSError, UnreadableImage, ValueError) as error:  # ValueError: a null character in a path
            self._errors[place] = in_words(error)
            return None
        except DataError as error:
            self._errors[place] = f"{error.what} ({error.got})"
            return None
        self._md5[place] = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return content

    @contextmanager
    def _picture(self, place: int) -> Iterator[Picture]:
        """A file as an image; a black one, and an entry in the errors, if it cannot be read."""
        with ExitStack() as held:
            content = self._content(place, held)
            try:
                picture = self._reading.black() if content is None else held.enter_context(self._reading.image(content))
            except UnreadableImage as error:
                self._errors[place] = in_words(error)
                picture = self._reading.black()
            yield picture

    def _take(self, places: Any, features_BD: Any) -> None:
        self._features_BD[places], self._ready_B[places] = features_BD, True
        read = [row for row, place in enumerate(places) if place not in self._errors]
        if self._known is not None and read:
            self._known.add(ids_of([self._md5[int(places[row])] for row in read]), features_BD[read])

    def _answered(self, start: int, stop: int) -> list[Answer]:
        features_BD = self._features_BD[start:stop]
        found, maps = self._classifier.answers(features_BD), self._heat(features_BD)
        return [
            Answer(self._files[place], {}, self._errors[place])
            if place in self._errors
            else Answer(self._files[place], answer, "", map_HW)
            for place, (answer, map_HW) in enumerate(zip(found, maps, strict=True), start)
        ]

    def _heat(self, features_BD: Features) -> Sequence[npt.NDArray[np.float32] | None]:
        return list(self._classifier.heat(features_BD)) if self._maps else [None] * len(features_BD)
