"""What predicts from a backbone's features: what `head` trains and a packaged model ends with.

N images, D features, K classes, M stored training images, H hidden units. Only numpy and safetensors are needed: a copy
of this module travels in every package. Rows are predicted in blocks, so that their number costs no memory.

A head says what it is by `kind`, `task` and `classes` (none where a number is predicted), and has two methods:

    predict_proba(features_ND) -> float64 (N, K): one class an image: rows sum to one; several: each in [0, 1]
    predict(features_ND) -> int64 codes (N,), int64 zeros and ones (N, K), or float64 (N,) in the target's own unit
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from ..core.errors import DataError
from ..core.files import read_json, write_json

if TYPE_CHECKING:
    from ..data.manifest import Task
    from ..solvers.principal_axes import Matrix

Array = npt.NDArray[Any]
Single = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]

BLOCK = 4096
"""Rows that are worked on at a time."""


class Head(ABC):
    """What all heads have in common; see the module."""

    kind: ClassVar[str]
    classes: list[str]
    task: Task

    @property
    @abstractmethod
    def dimension(self) -> int:
        """D, how many features it takes."""

    @abstractmethod
    def _output(self, x_BD: Single) -> Double:
        """Of a block of features: probabilities (B, K), or the number (B, 1)."""

    @abstractmethod
    def _tensors(self) -> dict[str, Array]:
        """By name, what of it are arrays."""

    def _settings(self) -> dict[str, Any]:
        """By name, what else it is made of."""
        return {}

    def predict_proba(self, features_ND: Array) -> Double:
        """Probabilities (N, K).

        Raises:
            ValueError: the features are not D columns, or a number is predicted, which has no probabilities.
        """
        if self.task == "regression":
            raise ValueError("a head that predicts a number has no probabilities; use predict")
        return self.output(np.asarray(features_ND))

    def predict(self, features_ND: Array) -> Array:
        """Codes (N,), zeros and ones (N, K), or numbers (N,), as the task is.

        Raises:
            ValueError: the features are not D columns.
        """
        return decide(self.output(np.asarray(features_ND)), self.task)

    def output(self, features_ND: Matrix) -> Double:
        """Probabilities (N, K), or numbers (N, 1).

        Args:
            features_ND: an array, or whatever else has a `shape` and gives rows by slices.

        Raises:
            ValueError: the features are not D columns.
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
        """`name`.safetensors with the numbers, `name`.json with what it is and whatever else is worth reading."""
        tensors = {key: np.ascontiguousarray(value) for key, value in self._tensors().items()}
        save_file(tensors, folder / f"{name}.safetensors")
        described = {"kind": self.kind, "task": self.task, "classes": self.classes, **self._settings()}
        write_json(folder / f"{name}.json", {**described, **facts})

    @classmethod
    def load(cls, folder: Path, name: str = "head") -> Self:
        """A head of this very kind.

        Raises:
            DataError: it is of another.
        """
        head = load_head(folder, name)
        if not isinstance(head, cls):
            raise DataError(f"{folder / name}.json is a head of another kind", got=head.kind, allowed=cls.kind)
        return head


@dataclass(frozen=True)
class LinearHead(Head):
    """x @ weight.T + bias are the logits, of softmax or for several classes an image of sigmoids, or the number itself.

    Attributes:
        weight: float32, shape (K, D), for features as the backbone gives them (any standardisation is folded in);
            (1, D) for a number.
        bias: float32, shape (K,) or (1,).
        classes: the K labels in the order of the rows.
    """

    weight: Single
    bias: Single
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "linear"

    @property
    def dimension(self) -> int:
        return self.weight.shape[1]

    def _output(self, x_BD: Single) -> Double:
        return link(x_BD.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias, self.task)

    def _tensors(self) -> dict[str, Array]:
        return {"weight": self.weight, "bias": self.bias}


@dataclass(frozen=True)
class MlpHead(Head):
    """The same on hidden units: relu(x @ hidden_weight.T + hidden_bias) @ weight.T + bias.

    Attributes:
        hidden_weight, hidden_bias: float32, (H, D) and (H,), for features as the backbone gives them.
        weight, bias: float32, (K, H) and (K,); (1, H) and (1,) for a number, in its own unit.
    """

    hidden_weight: Single
    hidden_bias: Single
    weight: Single
    bias: Single
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "mlp"

    @property
    def dimension(self) -> int:
        return self.hidden_weight.shape[1]

    def _output(self, x_BD: Single) -> Double:
        hidden_BH = np.maximum(x_BD @ self.hidden_weight.T + self.hidden_bias, 0)
        return link(hidden_BH.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias, self.task)

    def _tensors(self) -> dict[str, Array]:
        names = ("hidden_weight", "hidden_bias", "weight", "bias")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class NeighbourHead(Head):
    """The `k` training images most alike by cosine vote with exp(cosine / temperature) times their weight (Wu et al.
    2018; Caron et al. 2021 for DINO). One further vote, as heavy as the least of them, goes to the classes by their
    share, so that no class is impossible. A number is the neighbours' mean, by the same votes.

    Attributes:
        unit: float16 (M, D), the training images' features, scaled to length one.
        target: int32 codes (M,), uint8 zeros and ones (M, K), or float64 numbers (M,).
        weight: float32 (M,).
    """

    unit: npt.NDArray[np.float16]
    target: Array
    weight: Single
    k: int
    temperature: float
    classes: list[str]
    task: Task = "classification"
    kind: ClassVar[str] = "knn"

    @property
    def dimension(self) -> int:
        return self.unit.shape[1]

    def search(self, features_ND: Matrix) -> tuple[Single, npt.NDArray[np.int64]]:
        """(cosines, places) of the `k` most alike, both (N, k), the nearest first; of equal cosines the earlier one."""
        n = features_ND.shape[0]
        cosine, place = np.empty((n, self.k), np.float32), np.empty((n, self.k), np.int64)
        for rows in blocks(n):
            cosine[rows], place[rows] = self._search(features_ND[rows].astype(np.float32, copy=False))
        return cosine, place

    def _search(self, x_BD: Single) -> tuple[Single, npt.NDArray[np.int64]]:
        query_BD = unit_length(x_BD)
        cosine = np.empty((len(x_BD), 0), np.float32)
        place = np.empty((len(x_BD), 0), np.int64)
        for rows in blocks(len(self.unit)):
            cosine = np.hstack([cosine, query_BD @ self.unit[rows].T.astype(np.float32)])
            here = np.broadcast_to(np.arange(rows.start, rows.stop), (len(x_BD), rows.stop - rows.start))
            place = np.hstack([place, here])
            cosine, place = _best(cosine, place, self.k)
        return cosine, place

    def vote(self, cosine_BJ: Single, place_BJ: npt.NDArray[np.int64]) -> Double:
        """What the J >= k neighbours of each row say by the first `k`: (B, K), or (B, 1) for a number."""
        cosine_BJ, place_BJ = cosine_BJ[:, : self.k], place_BJ[:, : self.k]
        likeness_BJ = np.exp((cosine_BJ - cosine_BJ[:, :1]).astype(np.float64) / self.temperature)
        votes_BJ = likeness_BJ * self.weight[place_BJ]
        if self.task == "regression":
            return ((votes_BJ * self.target[place_BJ]).sum(axis=1) / votes_BJ.sum(axis=1))[:, None]
        chosen_BK = np.zeros((len(place_BJ), len(self.classes)))
        for j in range(place_BJ.shape[1]):
            if self.task == "classification":
                chosen_BK[np.arange(len(place_BJ)), self.target[place_BJ[:, j]]] += votes_BJ[:, j]
            else:
                chosen_BK += votes_BJ[:, j, None] * self.target[place_BJ[:, j]]
        further_B1 = likeness_BJ[:, -1:] * self.weight.mean()
        return (chosen_BK + further_B1 * self.share()) / (votes_BJ.sum(axis=1, keepdims=True) + further_B1)

    def share(self) -> Double:
        """Of all weight, that of the images of each class, shape (K,)."""
        weight = self.weight.astype(np.float64)
        if self.task == "classification":
            return np.bincount(self.target, weights=weight, minlength=len(self.classes)) / weight.sum()
        return cast(Double, weight @ self.target / weight.sum())

    def _output(self, x_BD: Single) -> Double:
        return self.vote(*self._search(x_BD))

    def _tensors(self) -> dict[str, Array]:
        return {name: getattr(self, name) for name in ("unit", "target", "weight")}

    def _settings(self) -> dict[str, Any]:
        return {"k": self.k, "temperature": self.temperature}


def _best(cosine: Single, place: npt.NDArray[np.int64], k: int) -> tuple[Single, npt.NDArray[np.int64]]:
    """The `k` largest of each row and their places, from the largest on; of equals the columns that come first.

    A partition would take any of equals, so that it is one of whole numbers that are never equal: the bits of a float32
    as a number of the same order, and below them the column.
    """
    bits = (0.0 - cosine).view(np.int32).astype(np.int64)  # 0.0 - x: there is but one nought
    order = (np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) << 32) + np.arange(cosine.shape[1])
    if cosine.shape[1] > k:
        order = np.partition(order, k - 1, axis=1)[:, :k]
    order = np.sort(order, axis=1) & 0xFFFFFFFF
    return np.take_along_axis(cosine, order, axis=1), np.take_along_axis(place, order, axis=1)


_KINDS: dict[str, Any] = {kind.kind: kind for kind in (LinearHead, MlpHead, NeighbourHead)}
_SETTINGS = ("k", "temperature")


def load_head(folder: Path, name: str = "head") -> Head:
    """The head that was saved in `folder` under `name`, of whatever kind.

    Raises:
        DataError: it is of a kind that this version does not know.
    """
    facts = read_json(folder / f"{name}.json")
    if facts.get("kind") not in _KINDS:
        raise DataError(
            f"{folder / name}.json is no head that this version knows",
            got=f"kind {facts.get('kind')!r}",
            allowed=", ".join(_KINDS),
            todo="run `dvc repro head`, which makes it anew",
        )
    kind = _KINDS[facts["kind"]]
    settings = {key: facts[key] for key in _SETTINGS if kind is NeighbourHead}
    tensors = load_file(folder / f"{name}.safetensors")
    return cast(Head, kind(**tensors, **settings, classes=facts["classes"], task=facts["task"]))


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """0 ... n in pieces of `size` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def decide(output: Double, task: Task) -> Array:
    """Probabilities as codes (N,), or for several classes an image as zeros and ones (N, K); numbers (N, 1) as (N,)."""
    if task == "classification":
        return output.argmax(axis=1)
    return (output >= 0.5).astype(np.int64) if task == "multilabel" else output[:, 0]


def link(logits: Array, task: Task) -> Double:
    """Logits (N, K) as probabilities; a number (N, 1) as itself."""
    if task == "classification":
        return softmax(logits)
    return sigmoid(logits) if task == "multilabel" else logits.astype(np.float64)


def softmax(logits: Array) -> Double:
    """Rows of probabilities, shape (N, K), without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponential = np.exp(shifted, dtype=np.float64)
    return exponential / exponential.sum(axis=1, keepdims=True)


def sigmoid(logits: Array) -> Double:
    """1 / (1 + exp(-logits)), each by itself, without overflow."""
    small = np.exp(-np.abs(logits), dtype=np.float64)
    return np.where(logits >= 0, 1.0, small) / (1.0 + small)


def unit_length(x_ND: Single) -> Single:
    """Rows of length one; a row of zeros stays one."""
    length = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64))
    return (x_ND / np.maximum(length, 1e-12)[:, None]).astype(np.float32)
