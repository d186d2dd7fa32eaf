"""The report on a test in which each image has any number of classes. N images, K classes.

A class is taken as found in an image where its probability is 0.5 or more.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.data.manifest import BETWEEN
from ..common.heads.base import decide
from ..common.scoring import classification, multilabel
from .params import EvaluateParams
from .plots import mistakes_picture, precision_recall_picture, reliability_picture
from .predictions import Floats, Outcome
from .selective import before_calibration

CAPTION = 30
"""Letters of an image's classes above its picture, at most."""


def scores(output_NK: Floats, y_NK: npt.NDArray[Any], params: EvaluateParams) -> dict[str, float]:
    """See `multilabel_scores`; mean average precision with its interval."""
    low, high = multilabel.mean_average_precision_interval(
        output_NK, y_NK, params.confidence, params.bootstrap, params.seed
    )
    ends = {"mean_average_precision_low": low, "mean_average_precision_high": high}
    return {**multilabel.multilabel_scores(output_NK, y_NK), **ends}


def predictions(outcome: Outcome) -> pd.DataFrame:
    """`predicted` (classes with `BETWEEN` between them, as `label`), `p_<class>`."""
    found_NK = decide(outcome.output, "multilabel") > 0
    names = np.array(outcome.classes, dtype=object)
    table = outcome.index.assign(predicted=[BETWEEN.join(names[found_K]) for found_K in found_NK])
    return table.assign(**{f"p_{name}": outcome.output[:, k] for k, name in enumerate(outcome.classes)})


def further(outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Calibration, every class of every image being a question; the figures of each class."""
    bins, before = outcome.reliability
    return {
        "calibration_error": classification.expected_calibration_error(bins),
        **before_calibration(*outcome.questions(outcome.before), outcome.calibration.temperature, before),
        "classes": len(outcome.classes),
        "per_class": multilabel.per_label(outcome.output, outcome.target, outcome.classes),
    }


def draw(
    outcome: Outcome,
    predictions: pd.DataFrame,
    metrics: dict[str, Any],
    params: EvaluateParams,
    raw: Path,
    channels: int,
    folder: Path,
) -> None:
    """precision_recall.png, reliability.png, mistakes.png."""
    bins, before = outcome.reliability
    average = {name: row["average_precision"] for name, row in metrics["per_class"].items()}
    curves = {
        name: multilabel.precision_recall(outcome.output[:, k], outcome.target[:, k])
        for k, name in enumerate(outcome.classes)
        if average[name] is not None
    }
    precision_recall_picture(curves, average, folder / "precision_recall.png")
    reliability_picture(bins, metrics["calibration_error"], folder / "reliability.png", before)
    mistakes_picture(worst(outcome, params.mistakes), raw, folder / "mistakes.png", channels)


def worst(outcome: Outcome, most: int) -> pd.DataFrame:
    """The images with the surest wrong answers, `path` and `caption` of each: a class that is not there and was found,
    or one that is there and was missed."""
    off_NK = np.abs(outcome.output - outcome.target)
    wrong_NK = np.where((outcome.output >= 0.5) != (outcome.target > 0), off_NK, 0.0)
    table = outcome.index.assign(k=wrong_NK.argmax(axis=1), off=wrong_NK.max(axis=1), row=np.arange(len(off_NK)))
    table = table[table["off"] > 0].sort_values(["off", "path"], ascending=[False, True]).head(most)
    return table.assign(caption=[_caption(outcome, one.label, one.row, one.k) for one in table.itertuples()])


def _caption(outcome: Outcome, label: str, row: int, k: int) -> str:
    has = textwrap.shorten(label.replace(BETWEEN, ", "), CAPTION, placeholder=" ...") or "no class"
    said = "missed" if outcome.target[row, k] else "found"
    return f"{has}\n{said} {outcome.classes[k]} ({outcome.output[row, k]:.0%})"


def tabulate(outcome: Outcome, predictions: pd.DataFrame, params: EvaluateParams, folder: Path) -> None:
    """average_precision.csv, reliability.csv and reliability_before.csv."""
    bins, before = outcome.reliability
    average = multilabel.average_precisions(outcome.output, outcome.target)
    known = pd.DataFrame({"label": outcome.classes, "average_precision": average}).dropna()
    known.to_csv(folder / "average_precision.csv", index=False)
    pd.DataFrame(bins).to_csv(folder / "reliability.csv", index=False)
    pd.DataFrame(before).to_csv(folder / "reliability_before.csv", index=False)
