"""A linear head on a backbone's features: what `head` trains, `finetune` starts from and a packaged model ends with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from .files import read_json, write_json

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LinearHead:
    """logits = x @ weight.T + bias.

    Attributes:
        weight: float32, shape (K, D), for features as the backbone gives them (any standardisation is folded in).
        bias: float32, shape (K,).
        classes: the K labels in the order of the rows.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    classes: list[str]

    def predict_proba(self, features: Array) -> npt.NDArray[np.float64]:
        """Probabilities of shape (N, K) for features of shape (N, D)."""
        return softmax(features.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias)

    def save(self, folder: Path, name: str = "head", **facts: Any) -> None:
        """`name`.safetensors with the numbers, `name`.json with the classes and whatever else is worth reading."""
        save_file({"weight": self.weight, "bias": self.bias}, folder / f"{name}.safetensors")
        write_json(folder / f"{name}.json", {"classes": self.classes, **facts})

    @classmethod
    def load(cls, folder: Path, name: str = "head") -> LinearHead:
        tensors = load_file(folder / f"{name}.safetensors")
        return cls(tensors["weight"], tensors["bias"], read_json(folder / f"{name}.json")["classes"])


def softmax(logits: Array) -> npt.NDArray[np.float64]:
    """Rows of probabilities, shape (N, K), without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponential = np.exp(shifted, dtype=np.float64)
    return exponential / exponential.sum(axis=1, keepdims=True)
