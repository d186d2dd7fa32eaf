"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), in pairs. B images a step, of any kind of maps (C, H, W).

An image's partner is its neighbour in the batch: 0 and 1, 2 and 3, and so on; the order is random anyway. So the parts
of a batch that several processes have are mixed as the whole would be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Mix:
    """Of a batch.

    Attributes:
        share_B: what is left of each image, in (0, 1].
        box_B4: (top, bottom, left, right) of what is taken from the partner, as shares of height and width; for mixup
            all nan.
    """

    share_B: npt.NDArray[np.float64]
    box_B4: npt.NDArray[np.float64]

    def part(self, rows: slice | npt.NDArray[np.int64]) -> Mix:
        return Mix(self.share_B[rows], self.box_B4[rows])


def draw(count: int, mixup: float, cutmix: float, rng: np.random.Generator) -> Mix | None:
    """How each image of a batch is mixed; partners alike. None if nothing is.

    Args:
        mixup, cutmix: of the Beta distributions, 0 for neither; with both, each pair is mixed by one of them.
    """
    if not (mixup or cutmix):
        return None
    share_B, box_B4 = np.ones(count), np.full((count, 4), np.nan)
    for first in range(0, count - 1, 2):
        cuts = bool(cutmix) and (not mixup or rng.random() < 0.5)
        alpha = cutmix if cuts else mixup
        share = float(rng.beta(alpha, alpha))
        if cuts:
            share, box_B4[first : first + 2] = _box(share, rng)
        share_B[first : first + 2] = share
    return Mix(share_B, box_B4)


def _box(share: float, rng: np.random.Generator) -> tuple[float, npt.NDArray[np.float64]]:
    """A box of about 1 - share of the area, cut off at the edges, and what is then left."""
    half = np.sqrt(1 - share) / 2
    middle = rng.random(2)
    (top, left), (bottom, right) = np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
    return 1 - float((bottom - top) * (right - left)), np.array([top, bottom, left, right])


def partners(count: int) -> npt.NDArray[np.int64]:
    """0 and 1, 2 and 3, ...; the last of an odd number has itself."""
    other = np.arange(count) ^ 1
    return np.where(other < count, other, np.arange(count))


def mix(x_BCHW: torch.Tensor, how: Mix) -> tuple[torch.Tensor, torch.Tensor]:
    """(the mixed maps, what is left of each image (B,)); CutMix's boxes are rounded to whole places."""
    partner = torch.from_numpy(partners(len(x_BCHW))).to(x_BCHW.device)
    share_B = how.share_B.copy()
    cuts_B = ~np.isnan(how.box_B4[:, 0])
    share = torch.from_numpy(np.where(cuts_B, 1.0, share_B)).to(x_BCHW)
    mixed = torch.lerp(x_BCHW[partner], x_BCHW, share.view(-1, *[1] * (x_BCHW.ndim - 1)))
    height, width = x_BCHW.shape[-2:]
    for b in np.flatnonzero(cuts_B):
        top, bottom, left, right = np.round(how.box_B4[b] * [height, height, width, width]).astype(int)
        mixed[b, ..., top:bottom, left:right] = x_BCHW[partner[b], ..., top:bottom, left:right]
        share_B[b] = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.from_numpy(share_B).to(x_BCHW)
