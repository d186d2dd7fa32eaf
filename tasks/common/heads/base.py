"""The interface of all heads, and functions of their output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from ..core.blocks import blocks
from ..core.files import write_json

if TYPE_CHECKING:
    from ..data.manifest import Task
    from ..data.matrix import Matrix

Array = npt.NDArray[Any]
Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]


class Head(ABC):
    """A head: from features to probabilities, or to a number."""

    kind: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]]
    """The names of its arrays; the first one is of shape (., D)."""
    classes: list[str]
    task: Task

    @property
    def dimension(self) -> int:
        """D, the number of features."""
        return int(getattr(self, self.arrays[0]).shape[1])

    @abstractmethod
    def _output(self, x_BD: Single) -> Double:
        """For a block of features: probabilities (B, K), or numbers (B, 1)."""

    def tensors(self) -> dict[str, Array]:
        """Its arrays, by the names under which they are saved."""
        return {key: np.ascontiguousarray(getattr(self, key)) for key in self.arrays}

    def settings(self) -> dict[str, Any]:
        """Its other attributes, by name."""
        return {}

    def predict_proba(self, features_ND: Array) -> Double:
        """Probabilities (N, K).

        Raises:
            ValueError: the features do not have D columns, or the task is regression.
        """
        if self.task == "regression":
            raise ValueError("a head for regression has no probabilities; use predict")
        return self.output(np.asarray(features_ND))

    def predict(self, features_ND: Array) -> Array:
        """Codes (N,), zeros and ones (N, K), or numbers (N,), by task.

        Raises:
            ValueError: the features do not have D columns.
        """
        return decide(self.output(np.asarray(features_ND)), self.task)

    def output(self, features_ND: Matrix) -> Double:
        """Probabilities (N, K), or numbers (N, 1).

        Args:
            features_ND: an array, or another `Matrix`.

        Raises:
            ValueError: the features do not have D columns.
        """
        shape = features_ND.shape
        if len(shape) != 2 or shape[1] != self.dimension:
            raise ValueError(f"features of shape (N, {self.dimension}) are needed, got {shape}")
        width = len(self.classes) if self.classes else 1
        output = np.empty((shape[0], width))
        for rows in blocks(shape[0]):
            output[rows] = self._output(features_ND[rows].astype(np.float32, copy=False))
        return output

    def save(self, folder: Path, name: str = "head", **facts: Any) -> None:
        """`name`.safetensors with the arrays, `name`.json with the other attributes and `facts`."""
        save_file(self.tensors(), folder / f"{name}.safetensors")
        described = {"kind": self.kind, "task": self.task, "classes": self.classes, **self.settings()}
        write_json(folder / f"{name}.json", {**described, **facts})


def unit_length(x_ND: Array) -> Single:
    """Rows of length one; a row of zeros stays as it is."""
    length = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64))
    return (x_ND / np.maximum(length, 1e-12)[:, None]).astype(np.float32, copy=False)


def decide(output: Double, task: Task) -> Array:
    """Probabilities as codes (N,), or with several classes as zeros and ones (N, K); numbers (N, 1) as (N,)."""
    if task == "classification":
        return output.argmax(axis=1)
    return (output >= 0.5).astype(np.int64) if task == "multilabel" else output[:, 0]


def link(logits: Array, task: Task) -> Double:
    """Logits (N, K) as probabilities; numbers (N, 1) as they are."""
    if task == "classification":
        return softmax(logits)
    return sigmoid(logits) if task == "multilabel" else logits.astype(np.float64)


def softmax(logits: Array) -> Double:
    """Rows of probabilities, shape (N, K), without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponential = np.exp(shifted, dtype=np.float64)
    return exponential / exponential.sum(axis=1, keepdims=True)


def sigmoid(logits: Array) -> Double:
    """1 / (1 + exp(-logits)), elementwise, without overflow."""
    small = np.exp(-np.abs(logits), dtype=np.float64)
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)
