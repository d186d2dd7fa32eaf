"""The learning curve: the error on subsets of the training images, and a power law for twice as many.

See `solvers/power_law.py`. S shares, E seeds, V validation images, K
classes, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.task import Task
from ..common.scoring.main_metric import main_metrics
from ..common.scoring.resampling import Counts, expanded_tail, resampled_times
from ..common.solvers.power_law import power_law
from .subsets import growing, lacks_a_class, strata

Floats = npt.NDArray[np.float64]

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Requested shares of the training images; the actual ones are reported."""

RESAMPLES = 200
"""Of the validation images, whole groups at a time, and the seeds, for intervals (Efron 1979)."""

CONFIDENCE = 0.95

SURE = 0.05
"""Of the mean variance, the minimum for each size: a few validation images can all be correct by chance."""

ASKED = 10
"""Minimum number of validation images: with fewer, chance matters more than the size."""

CONSTANT = 1e-9
"""Of the variance: a resample with less has only one distinct number, and R² is undefined."""

LEAST = 4
"""Minimum number of sizes to fit three parameters."""

TABLE, SIZES = ["share", "images", "seed", "value"], ["share", "images", "value", "low", "high"]

Predict = Callable[[Rows, Rows, float], Floats]
"""(rows to train on, rows to predict, factor of the strength) -> output (rows, K), see `probe`."""


@dataclass(frozen=True)
class Curve:
    """Attributes:
    table: one row per size and seed: `share`, `images`, `seed`, and the main metric as `value`.
    sizes: one row per size: `share`, `images`, `value`, `low`, `high`; none without a usable validation split.
    skipped: the `SHARES` without a subset, with the reason.
    doubling: the gain from twice the images: `gain`, `low`, `high`, or the `reason` why it is unknown.
    fitted: `a`, `b`, `c`; empty if no law fits.
    """

    table: pd.DataFrame
    sizes: pd.DataFrame
    skipped: dict[float, str]
    doubling: dict[str, Any]
    fitted: dict[str, float]


def learning_curve(pack: FeatureSet, predict: Predict, unit_N: Rows, seeds: int, seed: int) -> Curve:
    """Trains on growing nested subsets of the training images, and scores each on validation. `unit_N`: of all images;
    units are drawn whole.

    The strength of the penalty is divided by the share of a subset: the penalty on the summed loss is then the same for
    all. On hand signs and clothes, with 15 to 1,500 images, that was as good as choosing the strength of each size on
    validation (0.3 points of accuracy less on average), and it costs one training instead of nine.
    """
    val = pack.rows("val")
    reason = _unasked(pack, val, unit_N)
    if reason:
        return no_curve(reason)
    parts, skipped = _parts(pack, unit_N, seeds, seed)
    target, whole, unit_V = pack.targets(val), len(pack.rows("train")), _codes(unit_N[val])

    def of_resamples(of_times: Callable[[Counts], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """(B + 1,), the first of all images once; resamples are drawn again each time, and never held together."""
        once = np.ones((1, len(val)), np.int32)
        return np.concatenate([of_times(once), *map(of_times, resampled_times(unit_V, RESAMPLES, seed))])

    degenerate_B = of_resamples(lambda times_BN: _degenerate(pack.task, target, times_BN))
    errors: dict[float, list[Floats]] = {}
    rows: list[dict[str, float]] = []
    with progress("audit: learning curve", len(parts), "parts") as bar:
        for share, number, learned in parts:
            output = predict(learned, val, whole / len(learned))
            error_B = 1 - of_resamples(partial(main_metrics, output, target, pack.task))
            errors.setdefault(share, []).append(np.where(degenerate_B, np.nan, error_B))
            held = {"share": len(learned) / whole, "images": len(learned), "seed": number}
            rows.append({"asked": share, **held, "value": 1 - error_B[0]})
            bar.add()
    table = pd.DataFrame(rows, columns=["asked", *TABLE]).astype({"seed": np.int64})
    tail = expanded_tail((1 - CONFIDENCE) / 2, len(np.unique(unit_N[val])))
    return _conclude(table, [np.stack(errors[share]) for share in errors], skipped, seed, tail)


def _codes(unit_N: Rows) -> Rows:
    """The units of some images as codes from 0 on."""
    return np.unique(unit_N, return_inverse=True)[1].astype(np.int64)


def _unasked(pack: FeatureSet, val: Rows, unit_N: Rows) -> str:
    """Why validation cannot be used; empty if it can."""
    if len(val) < ASKED:
        return f"there are only {len(val)} validation images, and a curve needs {ASKED}"
    if len(np.unique(unit_N[val])) == 1:
        return "all validation images are of one group, or copies of each other"
    if pack.task == "regression" and len(np.unique(pack.targets(val))) == 1:
        return "all validation images have the same number"
    return ""


def no_curve(reason: str, skipped: dict[float, str] | None = None) -> Curve:
    """The curve of data without one, and why."""
    return Curve(pd.DataFrame(columns=TABLE), pd.DataFrame(columns=SIZES), skipped or {}, {"reason": reason}, {})


def _degenerate(task: Task, target_N: Floats, weight_BN: Counts) -> npt.NDArray[np.bool_]:
    """Which resamples (B,) have only one distinct number."""
    if task != "regression":
        return np.zeros(len(weight_BN), np.bool_)
    centred_N, total_B = target_N - target_N.mean(), weight_BN.sum(axis=1)
    variance_B = weight_BN @ centred_N**2 / total_B - (weight_BN @ centred_N / total_B) ** 2
    return np.asarray(variance_B <= CONSTANT * target_N.var())


def _parts(
    pack: FeatureSet, unit_N: Rows, seeds: int, seed: int
) -> tuple[list[tuple[float, int, Rows]], dict[float, str]]:
    """((requested share, number of the seed, rows), ...) by share, and the skipped shares; of shares with equally many
    images, the largest is kept."""
    train = pack.rows("train")
    stratum, unit = strata(pack, train), _codes(unit_N[train])
    drawn = [growing(stratum, unit, SHARES, seed + number) for number in range(seeds)]
    parts: list[tuple[float, int, Rows]] = []
    skipped: dict[float, str] = {}
    after = 0
    for place, share in reversed(list(enumerate(SHARES))):
        here = [train[by_share[place]] for by_share in drawn[: 1 if share == 1 else seeds]]
        if min(map(len, here)) == after:
            skipped[share] = f"no fewer images than at the next share ({after})"
        elif any(lacks_a_class(pack, train, part) for part in here):
            skipped[share] = "too few groups for an image of every class"
        else:
            parts = [(share, number, part) for number, part in enumerate(here)] + parts
            after = min(map(len, here))
    return parts, dict(sorted(skipped.items()))


def _conclude(
    table: pd.DataFrame, errors_SEB: list[Floats], skipped: dict[float, str], seed: int, tail: float
) -> Curve:
    """errors: for each size (seeds, 1 + B), the first without resampling; nan where the metric is undefined. Intervals
    leave out `tail` at each end."""
    known = np.asarray(np.isfinite(np.concatenate(errors_SEB)).all(axis=0))
    if not known[0] or not known[1:].any():
        return no_curve("validation has too few labels of each kind", skipped)
    errors_SEB = [errors_EB[:, known] for errors_EB in errors_SEB]
    rng = np.random.default_rng([seed, 2])
    mean_SB = np.stack([_mean_of_seeds(errors_EB, rng) for errors_EB in errors_SEB])
    low_S, high_S = np.quantile(1 - mean_SB[:, 1:], [tail, 1 - tail], axis=1)
    sizes = table.groupby("asked")[["share", "images"]].mean().reset_index(drop=True)
    sizes = sizes.assign(value=1 - mean_SB[:, 0], low=low_S, high=high_S)[SIZES]
    table = table[TABLE]
    reason = _unfit(mean_SB, tail)
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
    """(1 + B,): the mean over all seeds, then over resampled seeds for each resample."""
    count, resamples = len(errors_EB), errors_EB.shape[1] - 1
    drawn_BE = rng.integers(count, size=(resamples, count))
    means_B = errors_EB[:, 1:].T[np.arange(resamples)[:, None], drawn_BE].mean(axis=1)
    return np.concatenate([[errors_EB[:, 0].mean()], means_B])


def _unfit(mean_SB: Floats, tail: float) -> str:
    """Why no law can be fitted; empty if one can."""
    if len(mean_SB) < LEAST:
        return f"there are only {len(mean_SB)} sizes, and a law needs {LEAST}"
    if mean_SB[-1, 0] <= 0:
        return "no error is left on validation"
    fall_B = mean_SB[0] - mean_SB[-1]
    if np.quantile(fall_B, tail) <= 0:
        return "the error does not clearly fall with more images"
    return ""
