"""What more training images bring: the error at parts of them, and what a power law says of twice as many.

    error(n) = a + b * n^-c

(Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically"). S shares, E seeds, V validation images, K
classes, B resamples, C exponents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.folds import units_of
from ..common.metrics import main_figures
from ..common.pack import Pack, Rows
from ..common.progress import progress
from .parts import growing, strata

Floats = npt.NDArray[np.float64]

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of the training images."""

RESAMPLES = 200
"""Of the validation images and the seeds, for intervals (Efron 1979)."""

CONFIDENCE = 0.95

EXPONENTS = np.linspace(0.05, 1.5, 59)
"""In which the law is searched; Hestness et al. found 0.07 to 0.35 for whole networks, and 0.5 is usual in theory."""

SURE = 0.05
"""Of the mean variance: no size is taken to be surer, for a few validation images can all be right by chance."""

LEAST = 4
"""Sizes from which three numbers can be fitted with one to spare."""

Predict = Callable[[Rows, Rows, float], Floats]
"""(rows to learn from, rows to predict, factor of the strength) -> output (rows, K), see `probe`."""


@dataclass(frozen=True)
class Curve:
    """Attributes:
    table: a row a size and seed: `share`, `images`, `seed`, and the task's figure as `value`.
    sizes: a row a size: `share`, `images`, `value`, `low`, `high`.
    skipped: shares of which no part could be made, with the reason.
    doubling: what twice the images would bring: `gain`, `low`, `high`, or none of them and why in `reason`.
    fitted: `a`, `b`, `c`; none without a law.
    """

    table: pd.DataFrame
    sizes: pd.DataFrame
    skipped: dict[float, str]
    doubling: dict[str, Any]
    fitted: dict[str, float]


def learning_curve(pack: Pack, predict: Predict, seeds: int, seed: int) -> Curve:
    """Trains on growing parts of the training images, which hold the smaller ones, and asks validation.

    The penalty's strength is divided by a part's share: the penalty on the summed loss is then the same for all. On
    hand signs and clothes, at 15 to 1,500 images, that was as good as to choose the strength of each size on validation
    (0.3 points of accuracy less in the mean), and it costs one training instead of nine.
    """
    parts, skipped = _parts(pack, seeds, seed)
    val = pack.rows("val")
    target = pack.targets(val)
    weight_B = np.vstack([np.ones(len(val)), _resamples(len(val), seed)])
    errors: dict[float, list[Floats]] = {}
    rows: list[dict[str, float]] = []
    with progress("audit: learning curve", len(parts), "parts") as bar:
        for share, number, learned in parts:
            output = predict(learned, val, 1 / share)
            errors.setdefault(share, []).append(1 - main_figures(output, target, pack.task, weight_B))
            rows.append({"share": share, "images": len(learned), "seed": number, "value": 1 - errors[share][-1][0]})
            bar.add()
    table = pd.DataFrame(rows, columns=["share", "images", "seed", "value"]).astype({"seed": np.int64})
    return _conclude(table, [np.stack(errors[share]) for share in errors], skipped, seed)


def _parts(pack: Pack, seeds: int, seed: int) -> tuple[list[tuple[float, int, Rows]], dict[float, str]]:
    """((share, number of the seed, rows), ...) by share, and the shares of which there is none."""
    train = pack.rows("train")
    stratum, unit = strata(pack, train), units_of(pack, train)[0]
    drawn = [growing(stratum, unit, SHARES, seed + number) for number in range(seeds)]
    parts: list[tuple[float, int, Rows]] = []
    skipped: dict[float, str] = {}
    before = 0
    for place, share in enumerate(SHARES):
        here = [train[by_share[place]] for by_share in drawn[: 1 if share == 1 else seeds]]
        if min(map(len, here)) == before:
            skipped[share] = f"no more images than at the share before ({before})"
        elif any(_lacks_a_class(pack, train, part) for part in here):
            skipped[share] = "too few groups for an image of every class"
        else:
            parts += [(share, number, part) for number, part in enumerate(here)]
            before = min(map(len, here))
    return parts, skipped


def _lacks_a_class(pack: Pack, train: Rows, part: Rows) -> bool:
    """Whether a class of the training images has none in this part."""
    if pack.task == "regression":
        return False
    if pack.task == "classification":
        return len(np.unique(pack.labels(part))) < len(np.unique(pack.labels(train)))
    return bool((pack.targets(train).any(axis=0) & ~pack.targets(part).any(axis=0)).any())


def _resamples(count: int, seed: int) -> Floats:
    """How often each of `count` images was drawn, (B, count)."""
    rng = np.random.default_rng([seed, 1])
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)


def _conclude(table: pd.DataFrame, errors_SEB: list[Floats], skipped: dict[float, str], seed: int) -> Curve:
    """errors: of each size (seeds, 1 + B), the first without resampling."""
    rng = np.random.default_rng([seed, 2])
    mean_SB = np.stack([_mean_of_seeds(errors_EB, rng) for errors_EB in errors_SEB])
    tail = (1 - CONFIDENCE) / 2
    low_S, high_S = np.quantile(1 - mean_SB[:, 1:], [tail, 1 - tail], axis=1)
    sizes = table.groupby("share", as_index=False).agg(images=("images", "mean"))
    sizes = sizes.assign(value=1 - mean_SB[:, 0], low=low_S, high=high_S)
    reason = _unfit(mean_SB)
    if reason:
        return Curve(table, sizes, skipped, {"reason": reason}, {})
    n_S = sizes["images"].to_numpy(np.float64)
    spread_S = mean_SB[:, 1:].var(axis=1)
    a_B, b_B, c_B = power_law(n_S, mean_SB, 1 / np.maximum(spread_S, SURE * spread_S.mean()))
    gain_B = b_B * (n_S[-1] ** -c_B - (2 * n_S[-1]) ** -c_B)
    low, high = np.quantile(gain_B[1:], [tail, 1 - tail])
    doubling = {"gain": float(gain_B[0]), "low": float(low), "high": float(high), "reason": ""}
    return Curve(table, sizes, skipped, doubling, {"a": float(a_B[0]), "b": float(b_B[0]), "c": float(c_B[0])})


def _mean_of_seeds(errors_EB: Floats, rng: np.random.Generator) -> Floats:
    """(1 + B,): the mean over all seeds, then over seeds drawn anew for each resample."""
    count, resamples = len(errors_EB), errors_EB.shape[1] - 1
    drawn_BE = rng.integers(count, size=(resamples, count))
    means_B = errors_EB[:, 1:].T[np.arange(resamples)[:, None], drawn_BE].mean(axis=1)
    return np.concatenate([[errors_EB[:, 0].mean()], means_B])


def _unfit(mean_SB: Floats) -> str:
    """Why no law can be fitted to these points; empty if one can."""
    if len(mean_SB) < LEAST:
        return f"there are only {len(mean_SB)} sizes, and a law needs {LEAST}"
    if mean_SB[-1, 0] <= 0:
        return "no error is left on validation"
    fall_B = mean_SB[0] - mean_SB[-1]
    if np.quantile(fall_B, (1 - CONFIDENCE) / 2) <= 0:
        return "the error does not clearly fall with more images"
    return ""


def power_law(n_S: Floats, error_SB: Floats, weight_S: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b and c, each (B,), of the weighted least squares with a and b not below zero: a straight line in n^-c for
    each exponent, of which the best is taken."""
    w = weight_S / weight_S.sum()
    best = [np.full(error_SB.shape[1], value) for value in (0.0, 0.0, EXPONENTS[0])]
    least_B = np.full(error_SB.shape[1], np.inf)
    for c in EXPONENTS:
        x = n_S**-c
        x_mean, y_mean_B = w @ x, w @ error_SB
        b_B = np.maximum((w * (x - x_mean)) @ (error_SB - y_mean_B) / (w @ (x - x_mean) ** 2), 0.0)
        a_B = y_mean_B - b_B * x_mean
        through_zero = a_B < 0
        b_B = np.where(through_zero, (w * x) @ error_SB / (w @ x**2), b_B)
        a_B = np.maximum(a_B, 0.0)
        rest_B = w @ (error_SB - a_B - x[:, None] * b_B) ** 2
        better = rest_B < least_B
        least_B = np.where(better, rest_B, least_B)
        best = [np.where(better, new, old) for new, old in zip((a_B, b_B, np.full_like(a_B, c)), best, strict=True)]
    return best[0], best[1], best[2]
