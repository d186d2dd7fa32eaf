"""How often drift is reported: of new images like the training images as seldom as `drift.significance` says, and of a
shift nearly always.

Features are drawn from a normal distribution; images of a group share a part of theirs, by the intraclass correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graft.tasks.studies.drift import compare

from .row import Row, noise

SIGNIFICANCE, PERMUTATIONS, QUANTILE = 0.05, 99, 0.95

FEATURES = 24


@dataclass(frozen=True)
class Setting:
    """Attributes:
    reference, today: the numbers of groups on both sides.
    images: of each group.
    icc: the share of the variance that the images of a group have in common.
    shift: of all new images, in standard deviations of one feature.
    """

    reference: int = 60
    today: int = 30
    images: int = 1
    icc: float = 0.0
    shift: float = 0.0


def simulate(runs: int, setting: Setting, seed: int) -> dict[str, float]:
    """The shares of runs that report drift: `by_unit`, which counts groups, and `by_image`."""
    rng = np.random.default_rng(seed)
    found = np.zeros(2)
    for run in range(runs):
        reference_nD, today_mD = (_features(rng, groups, setting) for groups in (setting.reference, setting.today))
        today_mD[:, 0] += setting.shift
        groups_N = np.repeat(np.arange(setting.reference + setting.today), setting.images)
        for place, groups in enumerate((groups_N, None)):
            result = compare(
                reference_nD, today_mD,
                significance=SIGNIFICANCE, permutations=PERMUTATIONS, far_quantile=QUANTILE, seed=run, groups_N=groups,
            )  # fmt: skip
            found[place] += result.verdict == "drift"
    by_unit, by_image = (found / runs).tolist()
    return {"by_unit": by_unit, "by_image": by_image}


def _features(rng: np.random.Generator, groups: int, setting: Setting) -> npt.NDArray[np.float64]:
    """(groups * images, FEATURES), the images of a group one after the other."""
    shared_UD = np.repeat(rng.normal(size=(groups, FEATURES)), setting.images, axis=0)
    own_ND = rng.normal(size=(groups * setting.images, FEATURES))
    return np.sqrt(setting.icc) * shared_UD + np.sqrt(1 - setting.icc) * own_ND


def long_run(runs: int) -> list[Row]:
    """False reports with single images and with groups, and the reports of a shift of one deviation."""
    alike = (
        ("independent images", Setting()),
        ("groups of 5 images, intraclass correlation 0.3", Setting(40, 20, 5, 0.3)),
    )
    rows = [
        Row(
            f"drift is reported of images that are alike: {name}",
            SIGNIFICANCE,
            simulate(runs, setting, seed=0)["by_unit"],
            (0.0, SIGNIFICANCE + noise(SIGNIFICANCE, runs)),
            runs,
        )
        for name, setting in alike
    ]
    shifted = simulate(runs, Setting(shift=2.0), seed=0)["by_unit"]
    return [*rows, Row("drift is reported of a shift of two standard deviations", 0.9, shifted, (0.9, 1.0), runs)]
