"""The head of a Gaussian at each place: PaDiM (Defard et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

if TYPE_CHECKING:
    from ..data.task import Task
from .anomaly import AnomalyHead, resampling, restoring
from .base import Double, Single


@dataclass(frozen=True)
class GaussianHead(AnomalyHead):
    """A place scores its Mahalanobis distance, |(x - mean) @ turn|, from the good images at the same place. h x w
    places that may be coarser than the map's; E channels, the map's last.

    Attributes:
        mean: float32 (h, w, E).
        turn: float32 (h, w, E, E); turn @ turn.T is the inverse covariance.
    """

    mean: Single
    turn: Single
    good: Double
    share: Double
    channels: int
    height: int
    width: int
    top: int
    classes: list[str]
    task: Task = "anomaly"
    kind: ClassVar[str] = "gaussian"
    arrays: ClassVar[tuple[str, ...]] = ("mean", "turn", "good", "share")

    def distances(self, x_PC: Single) -> Single:
        """Of whole maps, place after place."""
        map_BHWC = x_PC.reshape(-1, self.height, self.width, self.channels)
        places_BhwE = coarser(map_BHWC, self.mean.shape)
        x_hwBE = np.ascontiguousarray(places_BhwE.transpose(1, 2, 0, 3)) - self.mean[:, :, None]
        turned_hwBE = x_hwBE @ self.turn
        distance_Bhw = np.sqrt(np.einsum("hwbe,hwbe->bhw", turned_hwBE, turned_hwBE))
        down_Hh, across_Ww = self.enlarging()
        return np.asarray(down_Hh @ distance_Bhw @ across_Ww.T, np.float32).reshape(-1)

    def enlarging(self) -> tuple[Single, Single]:
        """(H, h) and (W, w): scores of the coarser places at all places."""
        high, wide = self.mean.shape[:2]
        return resampling(high, self.height), resampling(wide, self.width)


def coarser(map_BHWC: Single, shape: tuple[int, ...]) -> Single:
    """The last channels at the fewer places that they were enlarged from, (B, h, w, E).

    Args:
        shape: (h, w, E).
    """
    high, wide, kept = shape
    down_hH, across_wW = (restoring(old, new) for old, new in zip(map_BHWC.shape[1:3], (high, wide), strict=True))
    kept_BHWE = map_BHWC[..., map_BHWC.shape[3] - kept :]
    fewer_BhWE = (down_hH @ kept_BHWE.reshape(len(kept_BHWE), len(down_hH.T), -1)).reshape(-1, len(across_wW.T), kept)
    return np.asarray(across_wW @ fewer_BhWE, np.float32).reshape(-1, high, wide, kept)
