"""How often `head.max_error` is broken: the model answers and is wrong more often than was guaranteed.

Images come in groups, such as patients, whose errors go together: the error rate of a group is drawn from a Beta
distribution with the intraclass correlation `icc`. Scores say nothing about the errors and the mean error rate is a
little above `max_error`, so every guarantee is broken: the hardest case.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from graft.tasks.common.scoring.selective import promise

from .row import Row, noise

MAX_ERROR, CONFIDENCE = 0.1, 0.9


def simulate(runs: int, groups: int, images: int, icc: float, seed: int) -> dict[str, float]:
    """The shares of runs in which the guarantee is broken: `by_unit`, as `promise` counts images of a group, and
    `by_image`, with every image as independent."""
    rng = np.random.default_rng(seed)
    unit_N = np.repeat(np.arange(groups), images)
    broken = np.zeros(2)
    for _ in range(runs):
        wrong_N = _errors(rng, groups, images, icc)
        score_N = rng.uniform(size=len(unit_N))
        found = [promise(score_N, wrong_N, MAX_ERROR, CONFIDENCE, units) for units in (unit_N, None)]
        broken += [one.threshold is not None for one in found]
    by_unit, by_image = (broken / runs).tolist()
    return {"by_unit": by_unit, "by_image": by_image}


def kept(runs: int, groups: int, seed: int) -> float:
    """The share of runs with independent images in which a head that is wrong in half of the allowed cases gets a
    guarantee."""
    rng = np.random.default_rng(seed)
    found = [
        promise(rng.uniform(size=groups), rng.uniform(size=groups) < MAX_ERROR / 2, MAX_ERROR, CONFIDENCE)
        for _ in range(runs)
    ]
    return float(np.mean([one.threshold is not None for one in found]))


def _errors(rng: np.random.Generator, groups: int, images: int, icc: float) -> npt.NDArray[np.bool_]:
    """(groups * images,) whether each prediction is wrong. A Beta(m t, (1 - m) t) rate of groups with
    t = (1 - icc) / icc has this intraclass correlation."""
    mean = 1.002 * MAX_ERROR
    if icc == 0:
        return rng.uniform(size=groups * images) < mean
    total = (1 - icc) / icc
    rate_G = rng.beta(mean * total, (1 - mean) * total, size=groups)
    return rng.uniform(size=groups * images) < np.repeat(rate_G, images)


def long_run(runs: int) -> list[Row]:
    """Broken guarantees of independent images and of patients."""
    allowed = 1 - CONFIDENCE
    settings = (
        ("300 independent images", 300, 1, 0.0),
        ("1,000 independent images", 1000, 1, 0.0),
        ("40 patients of 20 images, intraclass correlation 0.3", 40, 20, 0.3),
        ("100 patients of 20 images, intraclass correlation 0.9", 100, 20, 0.9),
    )
    return [
        Row(
            f"a guarantee of `head.max_error` is broken: {name}",
            allowed,
            simulate(runs, groups, images, icc, seed=0)["by_unit"],
            (0.0, allowed + noise(allowed, runs)),
            runs,
        )
        for name, groups, images, icc in settings
    ]
