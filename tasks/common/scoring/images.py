"""How near images are to their targets. H x W pixels, C channels, values from 0 to 1; N images.

PSNR and SSIM (Wang et al. 2004) of images; Dice and intersection over union of masks. Those of masks are of all pixels
of all images together: of an image without a marked pixel alone they would not be defined.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import influence
from .influence import Bools, Floats, Moved

LEAST_ERROR = 1e-10
"""Mean squared error below which a PSNR is 100 dB: it is infinite for equal images."""

SIGMA, RADIUS = 1.5, 5
"""Of the Gaussian window of SSIM: 11 x 11 pixels, as in Wang et al. 2004."""

STABLE = (0.01**2, 0.03**2)
"""C1 and C2 of SSIM, for values from 0 to 1."""

LIKENESS, OVERLAP = ("psnr", "ssim"), ("both", "found", "marked")
"""The columns of an image, and those of a mask: pixels that are found and marked, found, marked."""

OF_MASKS = ("dice", "iou")
"""The metrics of masks; those of images are the means of `LIKENESS`."""

Image = npt.NDArray[Any]


def psnr(found: Image, target: Image) -> float:
    """Peak signal-to-noise ratio in dB, of two images of one shape; 100 for equal ones."""
    error = float(np.mean((found.astype(np.float64) - target) ** 2))
    return float(-10 * np.log10(max(error, LEAST_ERROR)))


def ssim(found_CHW: Image, target_CHW: Image) -> float:
    """Mean structural similarity of the channels, of the places where the window lies within the image; in an image
    smaller than the window, of all places."""
    a, b = found_CHW.astype(np.float64), target_CHW.astype(np.float64)
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    both = _window(a * b) - mean_a * mean_b
    c1, c2 = STABLE
    likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    likeness /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    inside = (slice(RADIUS, -RADIUS) if side > 2 * RADIUS else slice(None) for side in a.shape[1:])
    return float(likeness[(slice(None), *inside)].mean())


def _window(x_CHW: Floats) -> Floats:
    """The weighted mean around each place."""
    from scipy.ndimage import gaussian_filter1d

    for axis in (1, 2):
        x_CHW = gaussian_filter1d(x_CHW, SIGMA, axis=axis, radius=RADIUS)
    return x_CHW


def overlap(found_HW: Bools, marked_HW: Bools) -> tuple[int, int, int]:
    """The numbers of `OVERLAP`."""
    return int((found_HW & marked_HW).sum()), int(found_HW.sum()), int(marked_HW.sum())


def dice(counts: Floats) -> Floats:
    """2 both / (found + marked), of counts (..., 3) as `OVERLAP` has them; nan where neither is anywhere."""
    both, found, marked = np.moveaxis(counts, -1, 0)
    return _ratio(2.0 * both, found + marked)


def iou(counts: Floats) -> Floats:
    """Intersection over union: both / (found + marked - both), as `dice`."""
    both, found, marked = np.moveaxis(counts, -1, 0)
    return _ratio(1.0 * both, found + marked - both)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def moved(columns_NM: Floats, metric: str) -> Moved:
    """A metric of N images, and how much each moves it, see `influence.py`; undefined for masks without a pixel.

    Args:
        columns_NM: as `LIKENESS` or `OVERLAP` name them.
    """
    if metric not in OF_MASKS:
        return influence.of_mean(columns_NM[:, LIKENESS.index(metric)])
    both_N, found_N, marked_N = columns_NM.T
    part_N = 2 * both_N if metric == "dice" else both_N
    whole_N = found_N + marked_N if metric == "dice" else found_N + marked_N - both_N
    total = float(whole_N.sum())
    if not total:
        return float("nan"), np.zeros(len(columns_NM))
    value = float(part_N.sum()) / total
    return value, (part_N - value * whole_N) / total


def of_resamples(columns_NM: Floats, metric: str, times_BN: npt.NDArray[Any]) -> Floats:
    """A metric of resamples, (B,), in which image n occurs `times`."""
    if metric in OF_MASKS:
        return (dice if metric == "dice" else iou)(times_BN @ columns_NM)
    return times_BN @ columns_NM[:, LIKENESS.index(metric)] / times_BN.sum(axis=1)
