"""What a map is: one flat vector an image, and where its levels, places and channels lie in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Neck = Literal["patches", "pyramid"]
"""`patches`: several depths side by side at each place, for comparing places; `pyramid`: each depth by itself, for a
decoder."""

NECKS: dict[str, Neck] = {"anomaly": "patches", "reconstruction": "pyramid"}
"""The tasks whose heads need maps, and in which form."""

Depth = int | str
"""A stride, the number of a transformer's block, or the name of a module."""


@dataclass(frozen=True)
class Wanted:
    """The maps that are asked for.

    Attributes:
        depths: of the network; none: those that suit the neck.
        channels: more channels than these are projected to so many.
        tiles: n; the picture is n times as high and wide as the network's input, and cut into n x n.
    """

    neck: Neck
    depths: tuple[Depth, ...] = ()
    channels: int = 128
    tiles: int = 1


@dataclass(frozen=True)
class Level:
    """Places of one size.

    Attributes:
        name: of the network's modules that it comes from.
        channels, height, width: C, H, W.
    """

    name: str
    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Part:
    """Channels of a level of `patches` that come from one module."""

    name: str
    channels: int


@dataclass(frozen=True)
class MapForm:
    """How D numbers are an image's map.

    Attributes:
        neck: `patches` is one level, (H, W, C) flattened; `pyramid` is its levels one after the other, each (C, H, W)
            flattened.
        parts: of the channels of `patches`, in order; none of `pyramid`.
        tiles: n; the map is of n x n tiles.
    """

    neck: Neck
    levels: tuple[Level, ...]
    parts: tuple[Part, ...] = ()
    tiles: int = 1

    @property
    def dimension(self) -> int:
        """D."""
        return sum(level.size for level in self.levels)

    @property
    def bytes(self) -> int:
        """Of one image's map in half precision."""
        return 2 * self.dimension

    def patches(self, maps_BD: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The places of `patches`: a view, (B, H * W, C)."""
        (level,) = self.levels
        return maps_BD.reshape(len(maps_BD), level.height * level.width, level.channels)

    def split(self, maps_BD: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The levels of `pyramid`: views, each (B, C, H, W)."""
        stops = np.cumsum([level.size for level in self.levels])
        return [
            maps_BD[:, stop - level.size : stop].reshape(-1, level.channels, level.height, level.width)
            for level, stop in zip(self.levels, stops.tolist(), strict=True)
        ]

    @property
    def channels(self) -> int:
        """Of all levels together."""
        return sum(level.channels for level in self.levels)

    def means(self, maps_BD: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The mean over the places of each level, (B, channels)."""
        if self.neck == "patches":
            return self.patches(maps_BD).mean(axis=1, dtype=np.float32)
        return np.hstack([level_BCHW.mean(axis=(2, 3), dtype=np.float32) for level_BCHW in self.split(maps_BD)])

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MapForm:
        return cls(
            values["neck"],
            tuple(Level(**level) for level in values["levels"]),
            tuple(Part(**part) for part in values["parts"]),
            values["tiles"],
        )
