"""What all ways of training a head have in common. N rows to learn from, M held out, D features, K classes.

They follow scikit-learn's conventions: the constructor only stores; `fit` checks what it is given and returns the
estimator; what is learned ends in `_`. `head_` is the head to serve, which predicts without any of this.

Beside each estimator stands the `path` of its grid: every candidate trained on the same rows, one after the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.core.errors import DataError
from ..common.core.words import listed
from ..common.data.manifest import Task
from ..common.data.matrix import Matrix
from ..common.heads.base import Head

Array = npt.NDArray[Any]
Double = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """What to learn from, checked.

    Attributes:
        features_ND: as the backbone gives them; read by slices.
        target: int64 codes (N,), float64 zeros and ones (N, K), or float64 numbers (N,).
        weight_N: float64, above 0.
    """

    features_ND: Matrix
    target: Array
    weight_N: Double


@dataclass(frozen=True)
class Trained:
    """A candidate of a grid.

    Attributes:
        settings: what makes it another than its neighbours in the grid.
        head: what was trained.
        output: of the held-out rows, (M, K) probabilities or (M, 1) numbers.
        train_loss: of the rows learned from; see each estimator.
        iterations: steps that it took.
        converged: whether training ended by itself.
    """

    settings: dict[str, float]
    head: Head
    output: Double
    train_loss: float
    iterations: int = 0
    converged: bool = True


class Walk(Protocol):
    """Trains a grid's candidates on some rows, one after the other; `held_MD` are features of rows held out."""

    def __call__(self, examples: Examples, held_MD: Matrix) -> Iterator[Trained]: ...


class Estimator(ABC):
    """Args:
    classes: the K classes, in the order of the codes; none for numbers.
    task: what a label is.
    """

    head_: Head

    def __init__(self, classes: list[str], task: Task = "classification") -> None:
        self.classes = classes
        self.task = task

    def fit(self, features_ND: Matrix, target: Array, weight_N: Array | None = None) -> Self:
        """Learns from rows.

        Args:
            features_ND: as the backbone gives them.
            target: codes (N,), zeros and ones (N, K), or numbers (N,).
            weight_N: of each row, above 0; all the same if not given.

        Raises:
            ValueError: shapes that do not fit, or codes that are no class's.
            DataError: values that are not finite, or a class without a row.
        """
        return self.learn(check(features_ND, target, weight_N, self.classes, self.task))

    def learn(self, examples: Examples) -> Self:
        """`fit`, of what has been checked."""
        self.head_ = self._fit(examples)
        return self

    @abstractmethod
    def _fit(self, examples: Examples) -> Head: ...

    def predict_proba(self, features_ND: Array) -> Double:
        """See `Head.predict_proba`."""
        return self._fitted().predict_proba(features_ND)

    def predict(self, features_ND: Array) -> Array:
        """See `Head.predict`."""
        return self._fitted().predict(features_ND)

    def _fitted(self) -> Head:
        if not hasattr(self, "head_"):
            raise ValueError(f"this {type(self).__name__} has learned nothing yet; call fit first")
        return self.head_


def check(features_ND: Matrix, target: Array, weight_N: Array | None, classes: list[str], task: Task) -> Examples:
    """What `fit` is given, with the types that it needs; see there for what is refused."""
    examples = accept(features_ND, target, weight_N, classes, task)
    check_finite(features_ND)
    return examples


def accept(features_ND: Matrix, target: Array, weight_N: Array | None, classes: list[str], task: Task) -> Examples:
    """`check` of all but the values of the features, which are many to read."""
    if len(features_ND.shape) != 2 or 0 in features_ND.shape:
        raise ValueError(f"features of shape (N, D) are needed, got {features_ND.shape}")
    n, k = features_ND.shape[0], len(classes)
    wanted = (n, k) if task == "multilabel" else (n,)
    if np.shape(target) != wanted:
        raise ValueError(f"a target of shape {wanted} is needed, got {np.shape(target)}")
    weight_N = np.ones(n) if weight_N is None else np.asarray(weight_N, np.float64)
    if weight_N.shape != (n,):
        raise ValueError(f"weights of shape {(n,)} are needed, got {weight_N.shape}")
    bad_N = ~(np.isfinite(weight_N) & (weight_N > 0))
    if bad_N.any():
        raise DataError("weights must be above 0", got=weight_N[bad_N][0], todo="correct the column `weight`")
    return Examples(features_ND, _checked_target(np.asarray(target), classes, task), weight_N)


def check_finite(features_ND: Matrix, names: Sequence[str] | None = None) -> None:
    """Args:
        names: what each row is of.

    Raises:
        DataError: features are not numbers, or infinite; names the first row.
    """
    for rows in blocks(features_ND.shape[0]):
        bad_BD = ~np.isfinite(features_ND[rows])
        if bad_BD.any():
            row = int(bad_BD.any(axis=1).argmax())
            place = rows.start + row
            raise DataError(
                f"the features of {names[place] if names is not None else f'row {place}'} are not finite",
                got=features_ND[rows][row][bad_BD[row]][0],
                todo="set `features.precision: f32` and `features.dtype: float32`, and run `graft repro` again",
            )


def _checked_target(target: Array, classes: list[str], task: Task) -> Array:
    if task == "regression":
        if not np.isfinite(target).all():
            raise DataError("targets must be finite", got=target[~np.isfinite(target)][0], todo="correct the labels")
        return target.astype(np.float64)
    if len(classes) < (2 if task == "classification" else 1):
        raise ValueError(f"at least two classes are needed, got {classes}")
    if task == "classification":
        if not np.isin(target, np.arange(len(classes))).all():
            raise ValueError(f"codes from 0 to {len(classes) - 1} are needed, got {np.unique(target)}")
        has_K = np.bincount(target.astype(np.int64), minlength=len(classes)) > 0
        _stop_if_a_class_is_empty(has_K, classes)
        return target.astype(np.int64)
    if not np.isin(target, (0, 1)).all():
        raise ValueError(f"zeros and ones are needed, got {np.unique(target)[:5]}")
    _stop_if_a_class_is_empty((target > 0).sum(axis=0) > 0, classes)
    return target.astype(np.float64)


def _stop_if_a_class_is_empty(has_K: npt.NDArray[np.bool_], classes: list[str]) -> None:
    if not has_K.all():
        named = listed(name for name, has in zip(classes, has_K) if not has)
        raise DataError(
            "a class has no image to learn from",
            got=named,
            allowed="at least one training image of each class",
            todo="add images of it, give some to the split train, or take it out of the data",
        )
