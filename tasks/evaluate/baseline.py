"""What a model that ignores the images would score, and what the images of the test are. N images, K classes."""

from __future__ import annotations

import numpy as np

from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.task import METRICS
from ..common.scoring.main_metric import metric_of


def baseline(pack: FeatureSet, test: Rows) -> dict[str, float]:
    """The metrics of the task for a constant answer: the frequencies of the classes among the training images, so that
    the most frequent class is predicted, or the mean of their numbers."""
    target = pack.targets(pack.rows("train"))
    if pack.task == "classification":
        constant_K = np.bincount(target, minlength=len(pack.classes)) / len(target)
    else:
        constant_K = np.atleast_1d(target.mean(axis=0))
    output_NK = np.broadcast_to(constant_K, (len(test), len(constant_K)))
    return {one.key: metric_of(output_NK, pack.targets(test), one.key, pack.task) for one in METRICS[pack.task]}


def unit_of(names: list[str]) -> str:
    """`group`, `picture` (its copies are one), or both."""
    groups = sum(name.startswith("group:") for name in names)
    if not groups:
        return "picture"
    return "group" if groups == len(names) else "group or picture"
