"""What the reports of tasks with classes share: intervals of the metrics, of each class too, and curves.

N images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..common.data.task import METRICS, Task
from ..common.heads.calibration import OF_DECISIONS
from ..common.scoring.intervals import class_intervals, interval, proportion_interval
from ..common.scoring.main_metric import metric_of
from ..common.scoring.ranking import precision_recall, roc
from .plots import precision_recall_plot, roc_plot
from .predictions import Floats, Ints, Predictions


def with_intervals(
    output_NK: Floats, decided_NK: Floats, target: npt.NDArray[Any], units: Ints, task: Task, confidence: float
) -> dict[str, float]:
    """Every metric of `METRICS`, with its ends as `<metric>_low` and `<metric>_high`."""
    found: dict[str, float] = {}
    for metric in METRICS[task]:
        judged_NK = decided_NK if metric.key in OF_DECISIONS else output_NK
        low, high = interval(judged_NK, target, units, task, metric=metric.key, confidence=confidence)
        value = metric_of(judged_NK, target, metric.key, task)
        found |= dict(zip(metric.keys, (value, low, high), strict=True))
    return found


def with_class_intervals(
    per_class: Mapping[str, Mapping[str, Any]], predicted: Predictions, task: Task, confidence: float
) -> pd.DataFrame:
    """A row for each class: its metrics, average precision and AUROC; recall and average precision with intervals."""
    of_all = predicted.output, predicted.target, predicted.units, task
    average = class_intervals(*of_all, "mean_average_precision", confidence)
    auroc = class_intervals(*of_all, "auroc", confidence)
    rows = []
    recalls = _recall_intervals(predicted, confidence)
    for k, ((name, found), recall) in enumerate(zip(per_class.items(), recalls, strict=True)):
        rows.append(
            {
                "class": name,
                "images": found["support"],
                "precision": found["precision"],
                "recall": found["recall"],
                **dict(zip(("recall_low", "recall_high"), recall, strict=True)),
                "f1": found["f1"],
                **dict(zip(("average_precision", "average_precision_low", "average_precision_high"), average[k])),
                "auroc": auroc[k][0],
            }
        )
    return pd.DataFrame(rows)


def _recall_intervals(predicted: Predictions, confidence: float) -> Iterator[tuple[float, float]]:
    """Of each class; nan if no image has it."""
    label_N = None if predicted.target.ndim > 1 else predicted.decided.argmax(axis=1)
    for k in range(len(predicted.classes)):
        has_N = _has(predicted, k)
        found_N = predicted.decided[:, k] >= 0.5 if label_N is None else label_N == k
        known = has_N.any()
        yield proportion_interval(found_N[has_N], predicted.units[has_N], confidence) if known else (np.nan, np.nan)


def _has(predicted: Predictions, k: int) -> npt.NDArray[np.bool_]:
    return predicted.target[:, k] > 0 if predicted.target.ndim > 1 else predicted.target == k


def draw_curves(predicted: Predictions, classes: pd.DataFrame, to: Path) -> None:
    """precision_recall.png and roc.png.

    Args:
        classes: as in report/classes.csv.
    """
    known = {name: k for k, name in enumerate(predicted.classes) if 0 < classes["images"][k] < len(predicted.target)}
    for of, column, plot in (
        (precision_recall, "average_precision", precision_recall_plot),
        (roc, "auroc", roc_plot),
    ):
        curves = {name: of(predicted.output[:, k], _has(predicted, k)) for name, k in known.items()}
        area = {name: float(classes[column][k]) for name, k in known.items()}
        plot(curves, area, to / f"{of.__name__}.png")
