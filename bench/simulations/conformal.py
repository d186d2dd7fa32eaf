"""How often conformal intervals and sets contain the truth, and how often a new image of the same kind seems strange.

Images are independent, or of patients whose images are alike: the share of the variance among patients is the
intraclass correlation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graft.tasks.common.heads.base import softmax
from graft.tasks.common.heads.calibration import Calibration
from graft.tasks.common.heads.typicality import Typicality
from graft.tasks.common.scoring.temperature import calibrate

from .row import Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CONFIDENCE = 0.9
NEW = 200
"""New images, each of a patient of its own, by which the coverage of a run is measured."""

D = 16


def intervals(runs: int, groups: int, images: int, icc: float, seed: int) -> dict[str, float]:
    """The share of new numbers in their interval: `by_unit`, and `by_image` with every image as independent."""
    rng = np.random.default_rng(seed)
    unit_N = np.repeat(np.arange(groups), images)
    covered = np.zeros(2)
    for _ in range(runs):
        error_N = _alike(rng, unit_N, icc, ()) ** 3  # heavy tails
        new_M = rng.normal(size=NEW) ** 3
        for place, units in enumerate((unit_N, np.arange(len(unit_N)))):
            low, high = _interval(error_N, units).ends(new_M[:, None])
            covered[place] += np.mean((low <= 0) & (high >= 0))
    return {"by_unit": float(covered[0] / runs), "by_image": float(covered[1] / runs)}


def sets(runs: int, images: int, seed: int) -> dict[str, float]:
    """Of a head that is too sure: the share of new images whose class is in the set, and the mean size of a set."""
    rng = np.random.default_rng(seed)
    covered, size = 0.0, 0.0
    for _ in range(runs):
        (p_NK, y_N), (new_MK, new_M) = _too_sure(rng, images), _too_sure(rng, NEW)
        found = calibrate(p_NK, y_N, np.ones(images), "classification", scale=True, set_confidence=CONFIDENCE)
        in_MK = found.sets(found.apply(new_MK))
        covered += in_MK[np.arange(NEW), new_M].mean()
        size += in_MK.sum(axis=1).mean()
    return {"coverage": float(covered / runs), "size": float(size / runs)}


def typicality(runs: int, groups: int, images: int, icc: float, seed: int) -> dict[str, float]:
    """The share of new images with a p-value of at most 0.05 and of at most 0.5, of the same kind, and of at most 0.05
    of another kind, in which every feature is noise."""
    rng = np.random.default_rng(seed)
    unit_N = np.repeat(np.arange(groups), images)
    found = np.zeros(3)
    for _ in range(runs):
        kinds = rng.normal(size=(4, D)) * 3
        known = Typicality.of(_pictures(rng, unit_N, icc, kinds), unit_N)
        p_M = known.p_values(_pictures(rng, np.arange(NEW), icc, kinds))
        strange_M = known.p_values(rng.normal(size=(NEW, D)) * 5)
        found += [np.mean(p_M <= 0.05), np.mean(p_M <= 0.5), np.mean(strange_M <= 0.05)]
    return dict(zip(("at_most_5", "at_most_50", "strange_at_most_5"), (found / runs).tolist(), strict=True))


def _pictures(rng: np.random.Generator, unit_N: Ints, icc: float, kinds_KD: Floats) -> Floats:
    """Features (N, D) of pictures of several kinds; a unit is of one kind."""
    kind_N = rng.integers(0, len(kinds_KD), unit_N.max() + 1)[unit_N]
    return kinds_KD[kind_N] + _alike(rng, unit_N, icc, (D,))


def _alike(rng: np.random.Generator, unit_N: Ints, icc: float, shape: tuple[int, ...]) -> Floats:
    """Standard normal values (N, *shape) with this intraclass correlation."""
    of_unit = rng.normal(size=(unit_N.max() + 1, *shape))[unit_N]
    return icc**0.5 * of_unit + (1 - icc) ** 0.5 * rng.normal(size=(len(unit_N), *shape))


def _too_sure(rng: np.random.Generator, n: int) -> tuple[Floats, Ints]:
    z_NK = 1.5 * rng.normal(size=(n, 6))
    y_N = (softmax(z_NK).cumsum(axis=1) > rng.uniform(size=(n, 1))).argmax(axis=1)
    return softmax(2.5 * z_NK), y_N


def _interval(error_N: Floats, unit_N: Ints) -> Calibration:
    n = len(error_N)
    return calibrate(
        error_N[:, None],
        np.zeros(n),
        np.ones(n),
        "regression",
        scale=True,
        unit_N=unit_N,
        interval_confidence=CONFIDENCE,
    )


SLACK = 0.01
"""Of a share of the new images."""


def long_run(runs: int) -> list[Row]:
    """Coverage of intervals and sets, and p-values of images of the same kind and of another."""
    low, rows = CONFIDENCE - SLACK, []
    for name, groups, images, icc, most in (
        ("100 independent images", 100, 1, 0.0, CONFIDENCE + SLACK),
        ("300 independent images", 300, 1, 0.0, CONFIDENCE + SLACK),
        ("20 patients of 20 images, intraclass correlation 0.3", 20, 20, 0.3, 1.0),
    ):
        covered = intervals(runs, groups, images, icc, seed=0)["by_unit"]
        rows.append(Row(f"a 90 % prediction interval has the number: {name}", CONFIDENCE, covered, (low, most), runs))
    covered = sets(runs, 150, seed=0)["coverage"]
    statement = "a 90 % prediction set has the class: 150 independent images"
    rows.append(Row(statement, CONFIDENCE, covered, (low, CONFIDENCE + SLACK + 1 / 150), runs))
    for name, groups, images, icc in (
        ("200 independent images", 200, 1, 0.0),
        ("40 patients of 10 images, intraclass correlation 0.3", 40, 10, 0.3),
    ):
        found = typicality(max(1, runs // 4), groups, images, icc, seed=0)
        rows += [
            Row(f"`typicality` of the same kind is at most 0.05: {name}", 0.05, found["at_most_5"], (0.0, 0.06), runs),
            Row(f"`typicality` of noise is at most 0.05: {name}", 1.0, found["strange_at_most_5"], (0.95, 1.0), runs),
        ]
    return rows
