"""The loss, and the meaning of the network's outputs. B images a step, K classes (1 for a number)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ..common.data.task import Task
from ..common.heads.linear import LinearHead

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Goal:
    """One class an image: cross-entropy; several: binary cross-entropy of each; a number: squared error.

    Attributes:
        smoothing: share of a label that is spread over all classes, or of each yes or no over both.
        mean, std: of the training images' numbers. The last layer works in these units, because otherwise a step of the
            optimizer would be too small for large numbers and too large for small ones.
        metric: a key of `METRICS`, for the curves, or `auto`.
    """

    task: Task
    smoothing: float
    mean: float = 0.0
    std: float = 1.0
    metric: str = "auto"

    @classmethod
    def of(cls, task: Task, target: Array, smoothing: float, metric: str = "auto") -> Goal:
        """Of the training images' targets."""
        if task != "regression":
            return cls(task, smoothing, metric=metric)
        return cls(task, smoothing, float(target.mean()), float(target.std()) or 1.0, metric)

    @property
    def unit(self) -> float:
        """Of the loss: 1 in nats, or the square of `std`."""
        return self.std**2

    def loss(self, logits_BK: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Of each image, shape (B,); `target` as in `FeatureSet.targets`."""
        if self.task == "classification":
            return F.cross_entropy(logits_BK, target, label_smoothing=self.smoothing, reduction="none")
        if self.task == "regression":
            return (logits_BK[:, 0] - ((target - self.mean) / self.std).to(logits_BK.dtype)) ** 2
        smooth_BK = (target * (1 - self.smoothing) + self.smoothing / 2).to(logits_BK.dtype)
        return F.binary_cross_entropy_with_logits(logits_BK, smooth_BK, reduction="none").mean(dim=1)

    def output(self, logits_BK: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, K), or numbers (B, 1) in their own unit; on the processor, as not every GPU has doubles."""
        if self.task == "classification":
            return logits_BK.softmax(dim=1)
        if self.task == "multilabel":
            return logits_BK.double().sigmoid()  # in single precision, near certainty would become certainty
        return logits_BK.double() * self.std + self.mean

    def start(self, head: LinearHead) -> tuple[Array, Array]:
        """(weight, bias) of the last layer."""
        if self.task != "regression":
            return head.weight, head.bias
        return head.weight / np.float32(self.std), ((head.bias.astype(np.float64) - self.mean) / self.std)

    def head(self, weight: Array, bias: Array, classes: list[str]) -> LinearHead:
        """The last layer as a head."""
        if self.task == "regression":
            weight, bias = weight * np.float32(self.std), bias.astype(np.float64) * self.std + self.mean
        return LinearHead(weight.copy(), bias.astype(np.float32), classes, self.task)
