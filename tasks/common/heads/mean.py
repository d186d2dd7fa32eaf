"""The mean of several heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from ..data.manifest import Task
from .base import Array, Double, Head, Single


@dataclass(frozen=True)
class MeanHead(Head):
    """The mean of the probabilities of heads, or of their numbers, of which each has columns of its own.

    Attributes:
        parts: the heads, in the order of their columns: the first takes the first of the D features, and so on.
        classes: of each of them.
    """

    parts: tuple[Head, ...]
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "mean"
    arrays: ClassVar[tuple[str, ...]] = ()

    @property
    def dimension(self) -> int:
        return sum(part.dimension for part in self.parts)

    def columns(self) -> list[slice]:
        """Of each part."""
        stops = np.cumsum([part.dimension for part in self.parts]).tolist()
        return [slice(stop - part.dimension, stop) for part, stop in zip(self.parts, stops, strict=True)]

    def _output(self, x_BD: Single) -> Double:
        outputs = [
            part.output(np.ascontiguousarray(x_BD[:, columns]))
            for part, columns in zip(self.parts, self.columns(), strict=True)
        ]
        mean: Double = np.mean(outputs, axis=0)
        return mean

    def tensors(self) -> dict[str, Array]:
        """Those of each part, with its number before the name."""
        return {
            f"{number}.{key}": tensor
            for number, part in enumerate(self.parts)
            for key, tensor in part.tensors().items()
        }

    def settings(self) -> dict[str, Any]:
        return {"parts": [{"kind": part.kind, **part.settings()} for part in self.parts]}


def tensors_of_part(tensors: dict[str, Array], number: int) -> dict[str, Array]:
    """Those of one part of a saved head."""
    start = f"{number}."
    return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
