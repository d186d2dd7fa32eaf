"""The report on a test with one class per image. N images, K classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.scoring import classification
from .class_metrics import draw_curves, with_class_intervals, with_intervals
from .params import EvaluateParams
from .plots import NAMED, confusion_plot, misclassified_plot, reliability_plot
from .predictions import Floats, Ints, Predictions
from .selective import abstention, before_calibration, prediction_sets, risk_coverage, risk_coverage_plot


def scores(
    output_NK: Floats, decided_NK: Floats, y_N: npt.NDArray[Any], units: Ints, confidence: float
) -> dict[str, Any]:
    """The metrics of `METRICS` with their intervals, log loss."""
    return {
        **with_intervals(output_NK, decided_NK, y_N, units, "classification", confidence),
        "log_loss": classification.log_loss(output_NK, y_N),
    }


def prediction_table(predicted: Predictions) -> pd.DataFrame:
    """`predicted`, `score`, `p_<class>`; `abstain` if there is a threshold."""
    names, p_NK = np.array(predicted.classes, dtype=object), predicted.output
    label_N = predicted.decided.argmax(axis=1)
    table = predicted.index.assign(predicted=names[label_N], score=predicted.calibration.score(p_NK))
    if predicted.calibration.threshold is not None:
        table = table.assign(abstain=~predicted.calibration.answers(p_NK))
    by_class = pd.DataFrame(p_NK, table.index, [f"p_{name}" for name in predicted.classes])
    return pd.concat([table, by_class], axis=1)


def further(predicted: Predictions, table: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Calibration and abstention, and the metrics of each class."""
    bins, before = predicted.reliability
    return {
        "calibration_error": classification.expected_calibration_error(bins),
        **before_calibration(predicted.before, predicted.target, predicted.calibration, before),
        "classwise_calibration_error": classification.classwise_calibration_error(
            predicted.output, predicted.target, params.bins
        ),
        **abstention(table, predicted.calibration, predicted.units, params.confidence),
        **prediction_sets(predicted, params.confidence),
        "classes": len(predicted.classes),
        "per_class": classification.per_class(_confusion(predicted), predicted.classes),
    }


def class_table(predicted: Predictions, confidence: float) -> pd.DataFrame:
    """Precision, recall, F1, average precision, AUROC and number of images of each class."""
    found = classification.per_class(_confusion(predicted), predicted.classes)
    return with_class_intervals(found, predicted, "classification", confidence)


def draw(
    predicted: Predictions,
    table: pd.DataFrame,
    classes: pd.DataFrame,
    metrics: dict[str, Any],
    most: int,
    to: Path,
) -> None:
    """confusion.png, reliability.png, risk_coverage.png, misclassified.png; of few classes roc.png and
    precision_recall.png."""
    bins, before = predicted.reliability
    wrong = table[table["predicted"] != table["label"]]
    worst = wrong.sort_values(["score", "path"], ascending=[False, True]).head(most)
    captions = [f"{one.label}\nas {one.predicted} ({one.score:.0%})" for one in worst.itertuples()]
    confusion_plot(_confusion(predicted), predicted.classes, to / "confusion.png")
    reliability_plot(bins, metrics["calibration_error"], to / "reliability.png", before)
    risk_coverage_plot(risk_coverage(table), metrics.get("abstention", {}), to / "risk_coverage.png")
    misclassified_plot(worst.assign(caption=captions), predicted.raw, to / "misclassified.png", predicted.reading)
    if len(predicted.classes) <= NAMED:
        draw_curves(predicted, classes, to)


def tabulate(predicted: Predictions, table: pd.DataFrame, to: Path) -> None:
    """confusion.csv, reliability.csv and reliability_before.csv, risk_coverage.csv."""
    predicted.tabulate_reliability(to)
    confused = table.rename(columns={"label": "actual"})[["actual", "predicted"]]
    confused.to_csv(to / "confusion.csv", index=False)
    risk_coverage(table).to_csv(to / "risk_coverage.csv", index=False)


def _confusion(predicted: Predictions) -> npt.NDArray[np.int64]:
    return classification.confusion(predicted.decided.argmax(axis=1), predicted.target, len(predicted.classes))
