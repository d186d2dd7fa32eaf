"""The backbones of a package, each with its graph and transform: from decoded images to features side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.core.errors import GraftError
from ..common.core.files import read_json
from ..common.engines.one_decode import Part, Places, block_size, geometry_of, stream_all
from ..common.engines.openvino import Engine, Features
from ..common.images.decode import Picture, Pixels
from ..common.images.reading import Reading
from ..common.images.transform import EvalTransform
from ..common.maps.form import MapForm


def eyes_in(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Of package.json: for each backbone at its size `graph` (its file's name without extension), `precision` and
    `transform`; of several also what else is known of each. A package with one has these facts at its top."""
    if "eyes" in facts:
        found: list[dict[str, Any]] = facts["eyes"]
        return found
    return [{"graph": "graph", "precision": facts["precision"], "transform": facts["transform"]}]


def reading_in(facts: dict[str, Any]) -> Reading:
    """How the images of a package are read."""
    if "reading" in facts:
        return Reading.from_dict(facts["reading"])
    return Reading(len(eyes_in(facts)[0]["transform"]["mean"]))  # by an earlier version of Graft


def form_in(facts: dict[str, Any]) -> MapForm | None:
    """What the features of a package are if they are maps."""
    return MapForm.from_dict(facts["maps"]) if "maps" in facts else None


LARGEST = float(np.finfo(np.float16).max)


def halved(maps_BD: Features) -> Features:
    """Maps in float32 with the values that the cache keeps of them, in half precision: a head answers the same by
    either. Values beyond its range, which no image of the project has, take its ends."""
    return np.clip(maps_BD, -LARGEST, LARGEST).astype(np.float16).astype(np.float32)


class PackagedEyes:
    """The graphs are compiled when they are first needed.

    Args:
        folder: of the package.

    Attributes:
        form: of the features, if they are maps; otherwise None.
    """

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / "package.json")
        self._folder, self._eyes = folder, eyes_in(facts)
        self.reading, self.form = reading_in(facts), form_in(facts)
        self._transforms = [EvalTransform.from_dict(eye["transform"]) for eye in self._eyes]

    @cached_property
    def _engines(self) -> list[Engine]:
        try:
            return [Engine(self._folder / f"{eye['graph']}.xml", eye["precision"]) for eye in self._eyes]
        except RuntimeError as error:
            raise GraftError(
                f"a graph in the package {self._folder} cannot be loaded",
                got=str(error).strip().splitlines()[-1],
                todo="copy the package again, or make it again with `graft repro`",
            ) from error

    @cached_property
    def columns(self) -> list[slice]:
        """Of the features of each backbone at its size."""
        stops = np.cumsum([engine.dimension for engine in self._engines]).tolist()
        return [slice(stop - one.dimension, stop) for one, stop in zip(self._engines, stops, strict=True)]

    def load(self) -> None:
        """Compiles the graphs now, while the folder is there."""
        assert self._engines

    def __len__(self) -> int:
        return len(self._eyes)

    @property
    def dimension(self) -> int:
        """D, of the features side by side."""
        return self.columns[-1].stop

    @property
    def transform(self) -> EvalTransform:
        """Of the first backbone."""
        return self._transforms[0]

    def features(
        self,
        decode: Callable[[int], AbstractContextManager[Picture]],
        count: int,
        done: Callable[[int], Any] = lambda images: None,
    ) -> Features:
        """(N, D), for N images.

        Args:
            decode: gives image i as long as the block lasts; called from several threads, once for each image.
            done: is told after each batch how many images one of the backbones has processed.

        Raises:
            Any error of `decode`.
        """
        features_ND = np.empty((count, self.dimension), np.float32)
        for number, places, batch_BD in self._stream(decode, count):
            features_ND[places, self.columns[number]] = batch_BD
            done(len(batch_BD))
        return features_ND

    def summaries(
        self,
        decode: Callable[[int], AbstractContextManager[Picture]],
        count: int,
        done: Callable[[int], Any] = lambda images: None,
    ) -> Features:
        """Features (N, S) that N images are compared by, as `features` otherwise: of maps see `summary`."""
        if self.form is None:
            return self.features(decode, count, done)
        summaries_NS = np.empty((count, self.form.channels), np.float32)
        for places, maps_BD in self.stream(decode, count):
            summaries_NS[places] = self.summary(maps_BD)
            done(len(maps_BD))
        return summaries_NS

    def summary(self, features_BD: npt.NDArray[Any]) -> Features:
        """(B, S): of maps the mean over their places; features of another kind as they are."""
        return features_BD if self.form is None else self.form.means(features_BD)

    def stream(
        self, decode: Callable[[int], AbstractContextManager[Picture]], count: int
    ) -> Iterator[tuple[Places, Features]]:
        """The same in memory that does not grow with the number of images.

        Yields:
            (the images' places (B,), their features (B, D)); all images, in order.
        """
        last = len(self) - 1
        size = block_size(list(dict.fromkeys(map(geometry_of, self._transforms)))) if last else 0
        block_SD = np.empty((size, self.dimension), np.float32)
        for number, places, batch_BD in self._stream(decode, count):
            if last:
                block_SD[places % size, self.columns[number]] = batch_BD
            if number == last:
                yield places, block_SD[places % size] if last else batch_BD

    def _stream(
        self, decode: Callable[[int], AbstractContextManager[Picture]], count: int
    ) -> Iterator[tuple[int, Places, Features]]:
        every_N = np.ones(count, np.bool_)
        parts = [Part(one, transform, every_N) for one, transform in zip(self._engines, self._transforms, strict=True)]
        for number, places, batch_BD in stream_all(parts, decode, self._crop):
            yield number, places, self._kept(batch_BD)

    def _kept(self, features_BD: Features) -> Features:
        return features_BD if self.form is None else halved(features_BD)

    def pixels(self, picture: Picture) -> list[Pixels]:
        """What each backbone sees of an image, uint8 (H, W, C)."""
        return [transform(*picture) for transform in self._transforms]

    def look(self, pixels_E: Sequence[Pixels]) -> Features:
        """Features (B, D) of one batch.

        Args:
            pixels_E: for each backbone uint8 (B, H, W, C), see `pixels`.
        """
        return self._kept(np.hstack([engine(pixels) for engine, pixels in zip(self._engines, pixels_E, strict=True)]))

    def _crop(self, picture: Picture, _place: int, number: int) -> Pixels:
        return self._transforms[number](*picture)
