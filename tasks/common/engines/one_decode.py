"""Several engines over the same images, each of which is decoded once.

Block by block: while the first engine runs, each image is decoded and also cropped for the others, which then find
their pixels in memory. With one engine, there is one block of all images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..images.decode import Pixels
from ..images.transform import EvalTransform
from .openvino import Features

BLOCK_BYTES = 128 * 2**20
"""The size of the cropped pixels of one block."""

BLOCK_STEP = 64
"""Blocks are multiples of the engines' batches, so that batches are the same as for a single backbone."""

Places = npt.NDArray[np.int64]


class Streams(Protocol):
    """What all engines do."""

    def stream(
        self, load: Callable[[int], Pixels], count: int, threads: int | None = None
    ) -> Iterator[tuple[int, Features]]: ...


def geometry_of(transform: EvalTransform) -> EvalTransform:
    """The transform without what does not affect the cropped pixels: normalisation is done by the engine."""
    fill = transform.mean if transform.crop_mode == "border" else (0.0,) * transform.channels
    return replace(transform, mean=fill, std=(1.0,) * transform.channels)


def block_size(geometries: Sequence[EvalTransform]) -> int:
    """The number of images in a block."""
    each = sum(geometry.channels * geometry.height * geometry.width for geometry in geometries)
    return max(1, BLOCK_BYTES // each // BLOCK_STEP) * BLOCK_STEP


@dataclass(frozen=True)
class Part:
    """An engine's part in a pass over N images.

    Attributes:
        transform: of its pixels; two parts whose transforms differ in the normalisation alone share them.
        wanted_N: which images it processes.
    """

    engine: Streams
    transform: EvalTransform
    wanted_N: npt.NDArray[np.bool_]


def stream_all(
    parts: Sequence[Part],
    decode: Callable[[int], AbstractContextManager[Any]],
    crop: Callable[[Any, int, int], Pixels],
    threads: int | None = None,
) -> Iterator[tuple[int, Places, Features]]:
    """Features by all parts.

    Args:
        decode: gives image i as long as the block lasts; called from several threads, once for each image that any part
            wants.
        crop: (what `decode` gave, i, the number of a part) -> the part's pixels, uint8 (H, W, C).
        threads: for decoding; by default one per core.

    Yields:
        (number of the part, the images' places (B,), float32 (B, D)); the places of each part in order.

    Raises:
        Any error of `decode` and `crop`.
    """
    geometries = [geometry_of(part.transform) for part in parts]
    places = np.flatnonzero(np.any([part.wanted_N for part in parts], axis=0))
    size = max(len(places), 1) if len(parts) == 1 else block_size(list(dict.fromkeys(geometries)))
    for start in range(0, len(places), size):
        block = _Block(parts, geometries, places[start : start + size], decode, crop)
        for number in range(len(parts)):
            yield from block.run(number, threads)


@dataclass
class _Block:
    """Some of the images. `kept` has the pixels that a part still needs: (number of the part, image) -> pixels."""

    parts: Sequence[Part]
    geometries: Sequence[EvalTransform]
    places: Places
    decode: Callable[[int], AbstractContextManager[Any]]
    crop: Callable[[Any, int, int], Pixels]
    kept: dict[tuple[int, int], Pixels] = field(default_factory=dict)

    def run(self, number: int, threads: int | None) -> Iterator[tuple[int, Places, Features]]:
        part = self.parts[number]
        rows = self.places[part.wanted_N[self.places]]
        batches = part.engine.stream(lambda i: self._pixels(number, int(rows[i])), len(rows), threads)
        for start, batch_BD in batches:
            yield number, rows[start : start + len(batch_BD)], batch_BD

    def _pixels(self, number: int, image: int) -> Pixels:
        """Of the first part that wants an image, after keeping those of the later ones."""
        kept = self.kept.pop((number, image), None)
        if kept is not None:
            return kept
        made: dict[EvalTransform, Pixels] = {}
        with self.decode(image) as decoded:
            for later in range(number, len(self.parts)):
                if self.parts[later].wanted_N[image]:
                    geometry = self.geometries[later]
                    if geometry not in made:
                        made[geometry] = self.crop(decoded, image, later)
                    self.kept[later, image] = made[geometry]
        return self.kept.pop((number, image))
