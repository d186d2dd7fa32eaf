"""Good images that may have a defect, and the gain from more good images, where the task is `anomaly`.

The stage `head` scores every good image of training and validation by a model that was not fitted on it. An image with
a defect that was labelled good has a score far above the others. Deviations are those of the scores' logarithms above
their median, in units of the median deviation of the upper half (1.4826 times it is a standard deviation of normal
numbers). Ranks alone, as of a conformal p-value, could not tell: of n images one is always the highest.

N good images, M of them fitted, V validation images, D features.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.core.blocks import blocks
from ..common.core.errors import DataError
from ..common.core.paths import Paths
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.task import GOOD
from ..common.heads.base import unit_length
from ..common.scoring.intervals import interval
from ..common.scoring.main_metric import main_metric
from .curve import Curve, learning_curve, no_curve
from .judgement import Judgement
from .label_issues import COLUMNS, FAR
from .params import AuditParams

Floats = npt.NDArray[np.float64]

COMPARED = 20_000
"""Maximum number of good images that a validation image is compared with."""

BY_CHANCE = 0.5 * 0.5 ** (1.4826 * FAR)
"""The share of good images without a defect that would be suspected too: the part of an exponential tail that begins at
the median. Scores are skewed, and a normal tail would be far too short."""

DEFECT = "a defect"
"""What a suspected good image is suggested to be."""


def judge_good_images(pack: FeatureSet, unit_N: Rows, params: AuditParams, paths: Paths) -> Judgement:
    """The good images whose scores are far above those of the others, the most anomalous first; the label of a defect
    is not judged.

    Args:
        unit_N: the unit of each row of the feature set.

    Raises:
        DataError: the stage `head` left no scores.
    """
    held = _held_out(pack, paths.head / "validation.parquet")
    good = held[held["label"] == GOOD]
    scored = _scored(good)
    doubted = scored[scored["deviation"] > FAR]
    learned = pack.index[pack.index["split"].isin(["train", "val"]) & (pack.index["label"] == GOOD)]
    return Judgement(
        l2=None,
        out_of_fold=_metric(held, unit_N),
        unjudged=len(learned) - len(good),
        by_chance=len(good) * BY_CHANCE,
        label_issues=_issues(doubted),
        doubted=len(doubted),
        judged=len(good),
        confusable=pd.DataFrame(),
        curve=_curve(pack, unit_N, params),
        scores=scored,
    )


def deviations(score_N: Floats) -> Floats:
    """How far above the median each score is, (N,), see above; 0 for scores that do not vary."""
    log_N = np.log(np.maximum(score_N, np.finfo(np.float32).tiny))
    centred_N = log_N - np.median(log_N)
    above = centred_N[centred_N > 0]
    scale = 1.4826 * float(np.median(above)) if len(above) else 0.0
    return centred_N / scale if scale > 0 else np.zeros(len(score_N))


def _held_out(pack: FeatureSet, file: Path) -> pd.DataFrame:
    """Images with a score by a model not fitted on them: `row`, `image_id`, `path`, `split`, `label`, `score`."""
    if not file.is_file():
        raise DataError(f"{file} does not exist", todo="run `graft repro`, which makes it in the stage head")
    found = pd.read_parquet(file, columns=["image_id", "score"]).dropna().drop_duplicates("image_id")
    score_of = found.astype({"image_id": str}).set_index("image_id")["score"]
    table = pack.index[["image_id", "path", "split", "label"]].astype(str)
    table = table.assign(row=np.arange(len(table)), score=table["image_id"].map(score_of))
    return table[table["split"] != "test"].dropna(subset=["score"]).reset_index(drop=True)


def _scored(good: pd.DataFrame) -> pd.DataFrame:
    table = good[["image_id", "path", "split", "label", "score"]]
    table = table.assign(deviation=deviations(good["score"].to_numpy(np.float64)).round(4))
    return table.sort_values(["score", "path"], ascending=[False, True], ignore_index=True)


def _issues(doubted: pd.DataFrame) -> pd.DataFrame:
    """The columns that every task has: lower scores are more suspicious."""
    return doubted.assign(
        suggested=DEFECT, score=-doubted["deviation"], p_label=math.nan, p_suggested=math.nan
    ).sort_values(["score", "path"], ignore_index=True)[COLUMNS]


def _metric(held: pd.DataFrame, unit_N: Rows) -> tuple[float, float, float] | None:
    """Of good images and of defects in validation; None without defects."""
    is_defect_N = held["label"].ne(GOOD).to_numpy(np.float64)
    if not 0 < is_defect_N.sum() < len(held):
        return None
    output_N1 = held["score"].to_numpy(np.float64)[:, None]
    units = np.unique(unit_N[held["row"].to_numpy()], return_inverse=True)[1].astype(np.int64)
    return main_metric(output_N1, is_defect_N, "anomaly"), *interval(output_N1, is_defect_N, units, "anomaly")


def _curve(pack: FeatureSet, unit_N: Rows, params: AuditParams) -> Curve:
    is_defect_V = pack.targets(pack.rows("val"))
    for share, lacking in ((is_defect_V, "defects"), (1 - is_defect_V, "good images")):
        if not share.any():
            return no_curve(f"validation has no {lacking}, and AUROC needs both")

    def nearest(learned: Rows, asked: Rows, _: float) -> Floats:
        return nearest_good(pack, learned, asked, params.seed)

    return learning_curve(pack, nearest, unit_N, params.curve_seeds, params.seed)


def nearest_good(pack: FeatureSet, learned: Rows, asked: Rows, seed: int) -> Floats:
    """1 - cosine of the features of each of `asked` to the nearest of `learned`, or of a sample of them, (V, 1)."""
    if len(learned) > COMPARED:
        learned = np.sort(np.random.default_rng([seed, 5]).permutation(learned)[:COMPARED])
    good_MD = unit_length(pack.features(learned))
    far_V = np.empty(len(asked))
    for rows in blocks(len(asked), 1024):
        far_V[rows] = 1 - (unit_length(pack.features(asked[rows])) @ good_MD.T).max(axis=1)
    return far_V[:, None]
