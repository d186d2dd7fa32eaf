"""The report on a test with several classes per image. N images, K classes.

A class is predicted if its probability is 0.5 or more.
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
from .params import EvaluateParams
from .plots import misclassified_plot, precision_recall_plot, reliability_plot
from .predictions import Floats, Predictions
from .selective import before_calibration

CAPTION = 30
"""Maximum number of characters of the classes above an image."""


def scores(output_NK: Floats, y_NK: npt.NDArray[Any], params: EvaluateParams) -> dict[str, float]:
    """See `multilabel_scores`; the mean average precision with its interval."""
    low, high = multilabel.mean_average_precision_interval(
        output_NK, y_NK, params.confidence, params.bootstrap, params.seed
    )
    ends = {"mean_average_precision_low": low, "mean_average_precision_high": high}
    return {**multilabel.multilabel_scores(output_NK, y_NK), **ends}


def prediction_table(predicted: Predictions) -> pd.DataFrame:
    """`predicted` (classes with `BETWEEN` between them, as `label`), `p_<class>`."""
    found_NK = decide(predicted.output, "multilabel") > 0
    names = np.array(predicted.classes, dtype=object)
    table = predicted.index.assign(predicted=[BETWEEN.join(names[found_K]) for found_K in found_NK])
    return table.assign(**{f"p_{name}": predicted.output[:, k] for k, name in enumerate(predicted.classes)})


def further(predicted: Predictions, table: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Calibration over every class of every image, and the metrics of each class."""
    bins, before = predicted.reliability
    return {
        "calibration_error": classification.expected_calibration_error(bins),
        **before_calibration(*predicted.questions(predicted.before), predicted.calibration.temperature, before),
        "classes": len(predicted.classes),
        "per_class": multilabel.per_label(predicted.output, predicted.target, predicted.classes),
    }


def draw(predicted: Predictions, table: pd.DataFrame, metrics: dict[str, Any], most: int, to: Path) -> None:
    """precision_recall.png, reliability.png, misclassified.png."""
    bins, before = predicted.reliability
    average = {name: row["average_precision"] for name, row in metrics["per_class"].items()}
    curves = {
        name: multilabel.precision_recall(predicted.output[:, k], predicted.target[:, k])
        for k, name in enumerate(predicted.classes)
        if average[name] is not None
    }
    precision_recall_plot(curves, average, to / "precision_recall.png")
    reliability_plot(bins, metrics["calibration_error"], to / "reliability.png", before)
    misclassified_plot(worst(predicted, most), predicted.raw, to / "misclassified.png", predicted.channels)


def worst(predicted: Predictions, most: int) -> pd.DataFrame:
    """`path` and `caption` of the images with the most confident errors: a class that is absent and was predicted, or
    one that is present and was missed."""
    off_NK = np.abs(predicted.output - predicted.target)
    wrong_NK = np.where((predicted.output >= 0.5) != (predicted.target > 0), off_NK, 0.0)
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
