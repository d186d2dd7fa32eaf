"""The weight of each row: its image's, times its class's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from ..common.core.errors import ParamsError, nearest
from ..common.core.words import listed
from ..common.data.manifest import Task
from .estimator import Array, Double

ClassWeight = Literal["none", "balanced"] | Mapping[str, float]


def check_class_weight(class_weight: ClassWeight, classes: list[str], task: Task) -> None:
    """Raises:
    ParamsError: classes are weighed where images do not have just one; or there is a weight for no class, or a class
        without one.
    """
    if class_weight == "none":
        return
    if task != "classification":
        raise ParamsError(
            "`head.class_weight` is for images of one class each",
            got=f"{class_weight if isinstance(class_weight, str) else 'a mapping'}, where `head.task` is {task}",
            allowed="none",
            todo="set it to none; the column `weight` of the table weighs single images",
        )
    if isinstance(class_weight, str):
        return
    unknown = [name for name in class_weight if name not in classes]
    missing = [name for name in classes if name not in class_weight]
    if unknown or missing:
        told = [f"no class is called {listed(unknown)}"] if unknown else []
        told += [f"none for {listed(missing)}"] if missing else []
        raise ParamsError(
            "`head.class_weight` must have a weight for each class",
            got="; ".join(told),
            allowed=listed(classes),
            todo=next(filter(None, (nearest(name, missing) for name in unknown)), "") or "name each class once",
        )


def weigh(weight_N: Double, target: Array, classes: list[str], class_weight: ClassWeight) -> Double:
    """The weights of rows by class: with `balanced`, every class has the same sum of them."""
    by_class_K = weight_by_class(weight_N, target, classes, class_weight)
    return weight_N if by_class_K is None else weight_N * by_class_K[target]


def weight_by_class(weight_N: Double, target: Array, classes: list[str], class_weight: ClassWeight) -> Double | None:
    """What the weight of an image of each class is multiplied by, (K,); none if classes have no weights."""
    if class_weight == "none":
        return None
    if class_weight == "balanced":
        share_K = np.bincount(target, weights=weight_N, minlength=len(classes))
        by_class_K: Double = weight_N.sum() / (
            np.count_nonzero(share_K) * np.where(share_K > 0, share_K, weight_N.sum())
        )
        return by_class_K
    assert not isinstance(class_weight, str)
    return np.array([class_weight[name] for name in classes])
