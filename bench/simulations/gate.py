"""How often the gate promotes, refuses and leaves undecided, for challengers whose true difference is known.

N images of K classes, in units. Champion and challenger answer each image with the same confidence, which is their true
chance of being right, and agree on most images. Each verdict is that of
`graft.flows.gate.verdict.judge`, with all checks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from graft.flows.gate.contest import Contest
from graft.flows.gate.verdict import judge
from graft.flows.runtime.params import GateParams

from .row import Row, noise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ACCURACY = 0.9
"""Of the champion."""

ALIKE = 0.7
"""Of what decides whether an answer is right, the share of the variance that both models have in common."""

PARAMS = GateParams()
"""A margin of 2 points and a significance of 5 %."""

WORSE = 0.05
"""How much worse the challenger is that must not be promoted."""


@dataclass(frozen=True)
class Setting:
    """Where the models meet.

    Attributes:
        classes: K.
        images: of each class.
        worse: by how much the challenger's accuracy is lower.
        unit: images in a unit; 1 for independent images.
        correlation: of the images of a unit.
    """

    classes: int
    images: int
    worse: float = 0.0
    unit: int = 1
    correlation: float = 0.3


def confidences(rng: np.random.Generator, images: int) -> Floats:
    """(N,): the chance that an answer is right, from 0.6 to 1, `ACCURACY` on average."""
    return 1 - 4 * (1 - ACCURACY) * rng.beta(1, 3, images)


def levels(rng: np.random.Generator, unit_N: Ints, correlation: float, models: int) -> Floats:
    """(M, N) standard normal; a model is right where the normal distribution at its level is below its chance."""

    def normal() -> Floats:
        if correlation == 0:
            return rng.normal(size=len(unit_N))
        of_unit_U = rng.normal(size=int(unit_N.max()) + 1)
        return np.sqrt(correlation) * of_unit_U[unit_N] + np.sqrt(1 - correlation) * rng.normal(size=len(unit_N))

    shared_N = normal()
    return np.stack([np.sqrt(ALIKE) * shared_N + np.sqrt(1 - ALIKE) * normal() for _ in range(models)])


def outputs(right_N: Bools, chance_N: Floats, target: Ints, classes: int) -> Floats:
    """(N, K) probabilities: the confidence for the class that is named, the rest for the others."""
    named_N = np.where(right_N, target, (target + 1) % classes)
    p_NK = np.repeat(((1 - chance_N) / max(classes - 1, 1))[:, None], classes, axis=1)
    p_NK[np.arange(len(target)), named_N] = chance_N
    return p_NK


def contest(rng: np.random.Generator, setting: Setting) -> Contest:
    """One champion and one challenger; half of the images existed when the champion was made."""
    k, n = setting.classes, setting.classes * setting.images
    target, unit_N = rng.permutation(np.repeat(np.arange(k), setting.images)), np.arange(n) // setting.unit
    chance_N = confidences(rng, n)
    level_MN = levels(rng, unit_N, setting.correlation if setting.unit > 1 else 0.0, 2)
    both = [
        outputs(ndtr(level_N) < own_N, own_N, target, k)
        for level_N, own_N in zip(level_MN, (chance_N, chance_N - setting.worse), strict=True)
    ]
    names = [f"class {number}" for number in range(k)]
    return Contest(
        task="classification", metric="auto", classes=names, champion_classes=names, target=target,
        champion=both[0], challenger=both[1], unit_N=unit_N, earlier_N=np.arange(n) % (2 * setting.unit) < setting.unit,
        left_out=0, latency=(1.0, 1.0),
    )  # fmt: skip


def simulate(runs: int, setting: Setting, params: GateParams = PARAMS, seed: int = 0) -> dict[str, float]:
    """The share of runs for each result of the gate: `promote`, `refuse` and `undecided`."""
    rng = np.random.default_rng(seed)
    found = [judge(contest(rng, setting), (), params).result for _ in range(runs)]
    return {result: found.count(result) / runs for result in ("promote", "refuse", "undecided")}


def ratchet(
    runs: int, images: int, new: int, retrainings: int = 50, params: GateParams = PARAMS, seed: int = 0
) -> dict[str, float]:
    """The accuracies that the gate reports for the champion after equal retrainings, among which it has chosen.

    Args:
        images: of the test, the same in each retraining.
        new: test images that come after the last promotion.

    Returns:
        `same`, on the test images by which the champion was chosen, `new`, on those that came since, and `promotions`
        per run. The true accuracy is `ACCURACY`.
    """
    rng = np.random.default_rng(seed)
    found = np.array([_ratchet(rng, images, new, retrainings, params) for _ in range(runs)])
    return dict(zip(("same", "new", "promotions"), found.mean(axis=0).tolist(), strict=True))


def _ratchet(
    rng: np.random.Generator, images: int, new: int, retrainings: int, params: GateParams
) -> tuple[float, float, float]:
    n, models = images + new, retrainings + 2
    chance_N, target = confidences(rng, n), np.zeros(n, np.int64)
    level_MN = levels(rng, np.arange(n), 0.0, models)
    answers = [outputs(ndtr(level_N) < chance_N, chance_N, target, 2) for level_N in level_MN]
    champion, promotions, earlier_N = answers[0], 0, np.arange(n) < images
    for challenger in answers[1:-1]:
        if judge(_of_two(champion, challenger, target, earlier_N).of(earlier_N), (), params).passed:
            champion, promotions = challenger, promotions + 1
    last = judge(_of_two(champion, answers[-1], target, earlier_N), (), params).metrics
    whole, part = last["champion_accuracy"] * n, last["champion_new_accuracy"]
    return (whole - part * new) / images, part, promotions


def _of_two(champion: Floats, challenger: Floats, target: Ints, earlier_N: Bools) -> Contest:
    names = ["yes", "no"]
    return Contest(
        task="classification", metric="auto", classes=names, champion_classes=names, target=target, champion=champion,
        challenger=challenger, unit_N=np.arange(len(target)), earlier_N=earlier_N, left_out=0, latency=(1.0, 1.0),
    )  # fmt: skip


EQUAL = (
    ("2 classes, 200 images", Setting(2, 100)),
    ("10 classes of 30 images", Setting(10, 30)),
    ("50 classes of 30 images", Setting(50, 30)),
    ("100 classes of 30 images", Setting(100, 30)),
    ("10 classes of 40 images, 20 patients of 20", Setting(10, 40, unit=20)),
)
"""Settings in which the challenger equals the champion."""


def long_run(runs: int) -> list[Row]:
    """Refused equal models, promoted worse models, and the accuracies that a champion reports after 50 retrainings."""
    limit = PARAMS.significance + 0.01
    rows = [
        Row(
            f"an equal model is refused: {name}",
            PARAMS.significance,
            simulate(runs, setting)["refuse"],
            (0.0, limit),
            runs,
        )
        for name, setting in EQUAL
    ]
    for images in (30, 100, 1000):
        rate = simulate(runs, Setting(2, images // 2, worse=WORSE))["promote"]
        statement = f"a model 5 points worse is promoted, margin 2 points: {images:,} images"
        rows.append(Row(statement, PARAMS.significance, rate, (0.0, PARAMS.significance), runs))
    for images in (100, 1000):
        rate = simulate(runs, Setting(2, images // 2, worse=PARAMS.margin))["promote"]
        statement = f"a model worse by just the margin is promoted: {images:,} images"
        rows.append(Row(statement, PARAMS.significance, rate, (0.0, limit), runs))
    few = max(1, runs // 20)
    found, slack = ratchet(few, 300, 100), noise(ACCURACY, 100 * few, 3.0)
    said = "accuracy of 90 %, as reported after 50 equal retrainings"
    rows.append(Row(f"{said}: test images that came since", ACCURACY, found["new"], (0.9 - slack, 0.9 + slack), few))
    rows.append(Row(f"{said}: the 300 that they were chosen by", ACCURACY, found["same"], (0.0, 1.0), few))
    return rows
