"""The report on a test with several classes per image. N images, K classes.

A class is predicted if its probability is 0.5 or more, or as `head.thresholds` says.
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
from ..common.scoring import classification, multilabel, ranking
from .class_metrics import draw_curves, with_class_intervals, with_intervals
from .params import EvaluateParams
from .plots import misclassified_plot, reliability_plot
from .predictions import Floats, Ints, Predictions
from .selective import before_calibration

CAPTION = 30
"""Maximum number of characters of the classes above an image."""


def scores(
    output_NK: Floats, decided_NK: Floats, y_NK: npt.NDArray[Any], units: Ints, confidence: float
) -> dict[str, Any]:
    """See `multilabel_scores`; the metrics of `METRICS` with their intervals."""
    found = multilabel.multilabel_scores(decided_NK, y_NK) | {"log_loss": multilabel.several_log_loss(output_NK, y_NK)}
    return found | with_intervals(output_NK, decided_NK, y_NK, units, "multilabel", confidence)


def prediction_table(predicted: Predictions) -> pd.DataFrame:
    """`predicted` (classes with `BETWEEN` between them, as `label`), `p_<class>`."""
    found_NK = decide(predicted.decided, "multilabel") > 0
    names = np.array(predicted.classes, dtype=object)
    table = predicted.index.assign(predicted=[BETWEEN.join(names[found_K]) for found_K in found_NK])
    by_class = pd.DataFrame(predicted.output, table.index, [f"p_{name}" for name in predicted.classes])
    return pd.concat([table, by_class], axis=1)


def further(predicted: Predictions, table: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Calibration over every class of every image, and the metrics of each class."""
    bins, before = predicted.reliability
    return {
        "calibration_error": classification.expected_calibration_error(bins),
        "classwise_calibration_error": classification.classwise_calibration_error(
            predicted.output, predicted.target, params.bins
        ),
        **before_calibration(*predicted.questions(predicted.before), predicted.calibration, before),
        **({} if predicted.calibration.thresholds is None else {"thresholds": "per class"}),
        "classes": len(predicted.classes),
        "per_class": multilabel.per_label(predicted.decided, predicted.target, predicted.classes),
    }


def class_table(predicted: Predictions, confidence: float) -> pd.DataFrame:
    """Precision, recall, F1, average precision, AUROC and number of images of each class; its threshold, if any."""
    found = multilabel.per_label(predicted.decided, predicted.target, predicted.classes)
    table = with_class_intervals(found, predicted, "multilabel", confidence)
    thresholds = predicted.calibration.thresholds
    return table if thresholds is None else table.assign(threshold=thresholds)


def draw(
    predicted: Predictions,
    table: pd.DataFrame,
    classes: pd.DataFrame,
    metrics: dict[str, Any],
    most: int,
    to: Path,
) -> None:
    """precision_recall.png, roc.png, reliability.png, misclassified.png."""
    bins, before = predicted.reliability
    draw_curves(predicted, classes, to)
    reliability_plot(bins, metrics["calibration_error"], to / "reliability.png", before)
    misclassified_plot(worst(predicted, most), predicted.raw, to / "misclassified.png", predicted.reading)


def worst(predicted: Predictions, most: int) -> pd.DataFrame:
    """`path` and `caption` of the images with the most confident errors: a class that is absent and was predicted, or
    one that is present and was missed."""
    off_NK = np.abs(predicted.output - predicted.target)
    wrong_NK = np.where((predicted.decided >= 0.5) != (predicted.target > 0), off_NK, 0.0)
    table = predicted.index.assign(k=wrong_NK.argmax(axis=1), off=wrong_NK.max(axis=1), row=np.arange(len(off_NK)))
    table = table[table["off"] > 0].sort_values(["off", "path"], ascending=[False, True]).head(most)
    return table.assign(caption=[_caption(predicted, one.label, one.row, one.k) for one in table.itertuples()])


def _caption(predicted: Predictions, label: str, row: int, k: int) -> str:
    has = textwrap.shorten(label.replace(BETWEEN, ", "), CAPTION, placeholder=" ...") or "no class"
    error = "missed" if predicted.target[row, k] else "predicted"
    return f"{has}\n{error} {predicted.classes[k]} ({predicted.output[row, k]:.0%})"


def tabulate(predicted: Predictions, table: pd.DataFrame, to: Path) -> None:
    """average_precision.csv, reliability.csv and reliability_before.csv."""
    predicted.tabulate_reliability(to)
    average = ranking.average_precisions(predicted.output, predicted.target)
    known = pd.DataFrame({"label": predicted.classes, "average_precision": average}).dropna()
    known.to_csv(to / "average_precision.csv", index=False)
