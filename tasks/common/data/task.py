"""The tasks, and the metric that models of each are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["classification", "multilabel", "regression", "anomaly", "reconstruction"]
"""The label of an image: one class, any number of classes, a number, or `GOOD` and kinds of defect. For
`reconstruction`, what is learned is an image, and the label is one class that only describes."""

GOOD = "good"
"""The label of images without a defect, where the task is `anomaly`; every other label is a kind of defect."""

BETWEEN = "|"
"""Separates the classes of one image, if it may have several."""


def names_in(label: str) -> list[str]:
    """The classes of an image that may have several."""
    return [name for name in label.split(BETWEEN) if name]


@dataclass(frozen=True)
class Metric:
    """A metric; more is better.

    Attributes:
        key: its name in metrics/evaluate.json; the ends of its interval are `key`_low and `key`_high.
        title: its name in words.
        percent: whether it is shown in percent.
    """

    key: str
    title: str
    percent: bool

    @property
    def keys(self) -> tuple[str, str, str]:
        """The keys of the value and of both ends of its interval."""
        return self.key, f"{self.key}_low", f"{self.key}_high"

    def text(self, value: float | None) -> str:
        """None, of a test that does not allow to compute it, is `unknown`."""
        if value is None:
            return "unknown"
        return f"{value:.1%}" if self.percent else f"{value:.3f}"

    def stated(self, found: Mapping[str, Any]) -> str:
        """The title and value to four digits, with the interval."""
        value, low, high = (found[key] for key in self.keys)
        return f"{self.title} unknown" if value is None else f"{self.title} {value:.4f} ({low:.4f} to {high:.4f})"


METRICS: dict[Task, tuple[Metric, ...]] = {
    "classification": (
        Metric("accuracy", "accuracy", True),
        Metric("balanced_accuracy", "balanced accuracy", True),
        Metric("f1_macro", "macro F1", True),
        Metric("auroc", "AUROC", False),
        Metric("mean_average_precision", "mean average precision", True),
        Metric("kappa", "Cohen's kappa", False),
    ),
    "multilabel": (
        Metric("mean_average_precision", "mean average precision", True),
        Metric("auroc", "AUROC", False),
        Metric("f1_macro", "macro F1", True),
    ),
    "regression": (Metric("r2", "R²", False),),
    "anomaly": (Metric("auroc", "AUROC", False), Metric("average_precision", "average precision", True)),
    "reconstruction": (
        Metric("psnr", "PSNR", False),
        Metric("ssim", "SSIM", False),
        Metric("dice", "Dice", False),
        Metric("iou", "IoU", False),
    ),
}
"""The metrics by which models of a task may be chosen, compared and gated; the first is the default.
Of those of reconstruction, the first two are for images and the others for masks; which of them decides is in
models/head/head.json."""

MAIN: dict[Task, Metric] = {task: metrics[0] for task, metrics in METRICS.items()}
"""The metric by which models of a task are compared and gated unless another one is asked for."""

LOSS: dict[Task, str] = {
    "classification": "log_loss",
    "multilabel": "log_loss",
    "regression": "mse",
    "anomaly": "false_alarm_rate",
    "reconstruction": "val_loss",
}
"""The mean loss that is minimised (less is better): it decides if the main metric is equal."""


def main_in(found: Mapping[str, Any]) -> Metric:
    """The main metric of a test, as metrics/evaluate.json has it: the first metric of its task that is there."""
    task: Task = found["task"]
    return next((one for one in METRICS[task] if one.key in found), MAIN[task])


def metric_named(key: str, task: Task) -> Metric:
    """The metric of the task with this key, or the default for `auto`.

    Raises:
        KeyError: it is not a metric of the task.
    """
    return MAIN[task] if key == "auto" else {one.key: one for one in METRICS[task]}[key]
