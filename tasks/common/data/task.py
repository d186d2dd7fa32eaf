"""What an image's label is, and by which figure a model that predicts it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "multilabel", "regression"]
"""What an image's label is: one class; any number of classes; a number."""

BETWEEN = "|"
"""Between the classes of one image, where it may have several."""


def names_in(label: str) -> list[str]:
    """The classes of an image that may have several."""
    return [name for name in label.split(BETWEEN) if name]


@dataclass(frozen=True)
class Figure:
    """A figure of merit; more is better.

    Attributes:
        key: what it is called in metrics/evaluate.json; its interval's ends are `key`_low and `key`_high.
        title: in words.
        percent: whether it is a share, and shown as one.
    """

    key: str
    title: str
    percent: bool

    @property
    def keys(self) -> tuple[str, str, str]:
        """Of the value and of the ends of its interval."""
        return self.key, f"{self.key}_low", f"{self.key}_high"

    def text(self, value: float) -> str:
        return f"{value:.1%}" if self.percent else f"{value:.3f}"


MAIN: dict[Task, Figure] = {
    "classification": Figure("accuracy", "accuracy", True),
    "multilabel": Figure("mean_average_precision", "mean average precision", True),
    "regression": Figure("r2", "R²", False),
}
"""The one figure by which models of a task are compared, shown first and let through."""

LOSS: dict[Task, str] = {"classification": "log_loss", "multilabel": "log_loss", "regression": "mse"}
"""The mean loss that is minimised (less is better): it decides where the main figure is the same."""
