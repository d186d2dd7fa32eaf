"""Resampling of independent units: a group of images, or one image with its copies (see `data/units.py`).

The N images belong to U units. The bootstrap draws U units with replacement, so that images of one patient or one scene
are drawn together (Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]

PART = 2**18
"""Numbers drawn at a time: more would not stay in the cache of the processor."""


def resampled_times(unit_N: Ints, samples: int, seed: int) -> Iterator[Counts]:
    """How often each image occurs in each resample, (B, N) at a time, `samples` rows in all.

    Args:
        unit_N: the unit of each image, codes from 0 on.
    """
    rng = np.random.default_rng(seed)
    units = int(unit_N.max()) + 1
    alone = units == len(unit_N) and bool((unit_N == np.arange(units)).all())
    step = max(1, PART // len(unit_N))
    for start in range(0, samples, step):
        drawn_BU = rng.integers(0, units, (min(step, samples - start), units))
        times_BU = times_drawn(drawn_BU)
        yield times_BU if alone else np.take(times_BU, unit_N, axis=1)


def times_drawn(drawn_BU: Ints) -> Counts:
    """How often each of U units was drawn."""
    samples, n = drawn_BU.shape
    places = drawn_BU + n * np.arange(samples)[:, None]
    return np.bincount(places.ravel(), minlength=drawn_BU.size).reshape(drawn_BU.shape).astype(np.int32)


def statistics(of_times: Callable[[Counts], Floats], unit_N: Ints, samples: int, seed: int) -> Floats:
    """A statistic of `samples` resamples, shape (samples,).

    Args:
        of_times: (B, N) times of each image -> (B,) values.
    """
    return np.concatenate([of_times(times_BN) for times_BN in resampled_times(unit_N, samples, seed)])


def expanded_tail(tail: float, units: int) -> float:
    """The tail probability that a percentile interval must be cut at so that it holds `tail` with few units.

    A percentile interval uses the normal distribution and the variance with 1/U; Student's t with U - 1 degrees of
    freedom and 1/(U - 1) are right (Hesterberg 2015, "expanded percentile interval").
    """
    from scipy.special import ndtr, stdtrit

    if units < 2:
        return 0.0
    return float(ndtr(stdtrit(units - 1, tail) * (units / (units - 1)) ** 0.5))


def restored_tail(tail: float, units: int) -> float:
    """The inverse of `expanded_tail`: the tail probability that holds, from the share of resamples beyond a value."""
    from scipy.special import ndtri, stdtr

    if units < 2:
        return 1.0
    return float(stdtr(units - 1, ndtri(tail) * ((units - 1) / units) ** 0.5))


def percentile_ends(values_B: Floats, confidence: float, units: int) -> tuple[float, float]:
    """Both ends of the expanded percentile interval; values that are not numbers are left out."""
    tail = expanded_tail((1 - confidence) / 2, units)
    known_B = values_B[~np.isnan(values_B)]
    if not len(known_B):
        return float("nan"), float("nan")
    low, high = np.quantile(known_B, [tail, 1 - tail])
    return float(low), float(high)
