"""The plots of the report. They need no display and carry no date, so that the same data give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from ..common.images.contact_sheet import contact_sheet, save
from ..common.images.reading import Reading
from ..common.scoring.classification import expected_calibration_error

matplotlib.use("agg")


Floats = npt.NDArray[np.float64]

Curves = dict[str, tuple[Floats, Floats]]
"""Class -> x and y."""


LABELLED = 40
"""A confusion matrix of more classes has no room for names and numbers: it shows those with the most errors."""


NAMED = 10
"""Maximum number of named curves: there are as many colours."""


GREY: dict[str, Any] = {"color": "0.75", "linewidth": 0.8}


def confusion_plot(matrix_KK: npt.NDArray[np.int64], names: list[str], path: Path) -> None:
    """Rows are true classes, columns predicted ones; the shade is the share of the true class, numbers are images."""
    shown = _most_confused(matrix_KK)
    share = matrix_KK / np.maximum(matrix_KK.sum(axis=1, keepdims=True), 1)
    title = "Confusion on the test images"
    if len(shown) < len(names):
        title += f"; the {len(shown)} classes of {len(names):,} with the most errors"
    grid = np.ix_(shown, shown)
    _draw_confusion(matrix_KK[grid], share[grid], [names[k] for k in shown], title, path)


def _most_confused(matrix_KK: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The `LABELLED` classes that are most often taken for others, or others for them, in order."""
    wrong_K = matrix_KK.sum(axis=0) + matrix_KK.sum(axis=1) - 2 * matrix_KK.diagonal()
    return np.sort(np.argsort(-wrong_K, kind="stable")[:LABELLED])


def _draw_confusion(matrix_KK: npt.NDArray[np.int64], share: Floats, names: list[str], title: str, path: Path) -> None:
    k = len(names)
    figure = Figure(figsize=(max(5.0, min(14.0, 1.6 + 0.55 * k)),) * 2, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.set_xticks(range(k), names, rotation=45, ha="right", parse_math=False)
    axes.set_yticks(range(k), names, parse_math=False)
    for (row, column), count in np.ndenumerate(matrix_KK):
        if count:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    save(figure, path)


def reliability_plot(
    rows: list[dict[str, Any]], error: float, path: Path, before: list[dict[str, Any]] | None = None
) -> None:
    """Accuracy against confidence, and the number of images in each bin; also `before` calibration."""
    figure = Figure(figsize=(5, 5.6), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    confidence = [row["confidence"] for row in rows]
    top.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="perfectly calibrated")
    top.plot(confidence, [row["accuracy"] for row in rows], marker="o", label="this model")
    if before is not None:
        was = [row["confidence"] for row in before]
        right = [row["accuracy"] for row in before]
        label = f"before calibration ({expected_calibration_error(before):.3f})"
        top.plot(was, right, color="tab:orange", marker=".", linewidth=1, zorder=1, label=label)
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02), title=f"Reliability (calibration error {error:.3f})")
    top.legend(loc="best")
    bottom.bar(confidence, [row["images"] for row in rows], width=0.04)
    bottom.set(xlabel="confidence", ylabel="images")
    save(figure, path)


def precision_recall_plot(curves: Curves, average: dict[str, float], path: Path) -> None:
    """(recall, precision) of each class, with its average precision; of many classes only the worst are named."""
    figure, axes = _class_curves(curves, average)
    axes.set(xlabel="recall", ylabel="precision", title=_curves_title("Precision and recall", curves))
    if curves:
        _legend(axes, "average precision", "lower left")
    save(figure, path)


def roc_plot(curves: Curves, area: dict[str, float], path: Path) -> None:
    """(false positive rate, true positive rate) of each class against the others, with the area below the curve."""
    figure, axes = _class_curves(curves, area)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=_curves_title("ROC curves", curves))
    if curves:
        _legend(axes, "AUROC", "lower right")
    save(figure, path)


def _class_curves(curves: Curves, score: dict[str, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    axes = figure.subplots()
    named = set(sorted(curves, key=lambda name: score[name])[:NAMED])
    for name in sorted(curves, key=lambda name: (name in named, score[name])):
        style: dict[str, Any] = {"label": f"{name}  {score[name]:.3f}"} if name in named else GREY
        axes.step(*curves[name], where="post", **style)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.05))
    return figure, axes


def _curves_title(text: str, curves: Curves) -> str:
    return f"{text} on the test images" + (f"; the {NAMED} worst named" if len(curves) > NAMED else "")


def _legend(axes: Any, title: str, place: str) -> None:
    for text in axes.legend(loc=place, title=title, fontsize=9).get_texts():
        text.set_parse_math(False)


def scatter_plot(true_N: Floats, predicted_N: Floats, path: Path) -> None:
    """Predicted against true numbers; on the line they are equal."""
    figure = Figure(figsize=(5.4, 5.2), layout="constrained")
    axes = figure.subplots()
    ends = [min(true_N.min(), predicted_N.min()), max(true_N.max(), predicted_N.max())]
    axes.plot(ends, ends, color="grey", linestyle="--", linewidth=1)
    axes.scatter(true_N, predicted_N, s=14, alpha=min(1.0, 0.2 + 100 / len(true_N)), linewidths=0)
    axes.set(xlabel="true", ylabel="predicted", title="Predicted against true on the test images")
    save(figure, path)


def residuals_plot(error_N: Floats, path: Path) -> None:
    """The histogram of the errors."""
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axes = figure.subplots()
    low, high = float(error_N.min()), float(error_N.max())
    reach = max(high - low, 1e-9 * max(abs(low), abs(high)), 1e-300)  # errors that differ by rounding share one bar
    middle = (low + high) / 2
    axes.hist(error_N, bins=min(40, max(8, len(error_N) // 8)), range=(middle - reach / 2, middle + reach / 2))
    axes.axvline(0, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="predicted minus true", ylabel="images", title=f"Errors (mean {error_N.mean():.3g})")
    save(figure, path)


def misclassified_plot(
    examples: pd.DataFrame, raw: Path, path: Path, reading: Reading, title: str = "Misclassified test images"
) -> None:
    """A contact sheet of images in the order given.

    Args:
        examples: `path` and `caption` of each image.
        reading: how the images are read.
    """
    title = title if len(examples) else "No misclassified test image"
    contact_sheet([raw / name for name in examples["path"]], list(examples["caption"]), title, path, reading)
