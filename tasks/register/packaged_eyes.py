"""The backbones of a package, each with its graph and transform: from decoded images to features side by side."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..common.core.files import read_json
from ..common.engines.one_decode import Part, stream_all
from ..common.engines.openvino import Engine, Features
from ..common.images.decode import Picture, Pixels
from ..common.images.reading import Reading
from ..common.images.transform import EvalTransform


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


class PackagedEyes:
    """Args:
    folder: of the package.
    """

    def __init__(self, folder: Path) -> None:
        facts = read_json(folder / "package.json")
        eyes = eyes_in(facts)
        self.reading = reading_in(facts)
        self._transforms = [EvalTransform.from_dict(eye["transform"]) for eye in eyes]
        self._engines = [Engine(folder / f"{eye['graph']}.xml", eye["precision"]) for eye in eyes]
        stops = np.cumsum([engine.dimension for engine in self._engines]).tolist()
        self._columns = [slice(stop - one.dimension, stop) for one, stop in zip(self._engines, stops, strict=True)]

    def __len__(self) -> int:
        return len(self._engines)

    @property
    def dimension(self) -> int:
        """D, of the features side by side."""
        return self._columns[-1].stop

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
        every_N = np.ones(count, np.bool_)
        parts = [Part(one, transform, every_N) for one, transform in zip(self._engines, self._transforms, strict=True)]
        for number, places, batch_BD in stream_all(parts, decode, self._crop):
            features_ND[places, self._columns[number]] = batch_BD
            done(len(batch_BD))
        return features_ND

    def _crop(self, picture: Picture, _place: int, number: int) -> Pixels:
        return self._transforms[number](*picture)
