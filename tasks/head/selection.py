"""Choosing a candidate: by the validation images, or by cross-validation over training and validation images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..common.core.errors import DataError, ParamsError
from ..common.core.progress import progress
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.folds import assign
from ..common.data.task import MAIN, METRICS, Task
from ..common.data.units import units_of
from ..common.heads.base import Head
from .class_weights import check_class_weight, weigh, weight_by_class
from .estimator import Double, Examples, accept, check_finite
from .grids import Kind, estimator_of, kind_of, walks_of
from .params import HeadParams
from .scores import Score
from .search import Fold, Found, Held, search

FEW, FOLDS = 100, 5
"""With fewer validation images than `FEW`, `head.folds: auto` cross-validates in `FOLDS` folds."""


@dataclass(frozen=True)
class Choice:
    """Attributes:
    found: all candidates, and the chosen one's outputs for the held-out images.
    held: rows of the held-out images in the feature set, in the same order.
    fold_M: the fold in which each was held out.
    head: the chosen candidate, trained on the training images alone.
    parts: the choice of each backbone, if the head is the mean of theirs; see `combine`.
    combined: the scores of both ways to combine several backbones, by name, of those that were tried.
    """

    kind: Kind
    found: Found
    held: Rows
    fold_M: Rows
    head: Head
    parts: tuple[Choice, ...] = ()
    combined: dict[str, Score] = field(default_factory=dict)


def choose(pack: FeatureSet, params: HeadParams, scratch: Path | None = None) -> Choice:
    """Trains the candidates of the grid and takes the best. `scratch`: see `solvers.logistic.path`.

    Raises:
        ParamsError: kind, selection, weights or folds that do not fit these images.
        DataError: features that are not finite, labels that are all the same, or a class without a training image.
    """
    kind, select = kind_of(params, pack.task), select_of(params, pack.task)
    check_class_weight(params.class_weight, pack.classes, pack.task)
    held, fold_M, learned = hold_out(pack, params)
    _check_images(pack, params)
    folds = [
        Fold(examples_of(pack, rows, params), pack.matrix(held[fold_M == fold])) for fold, rows in enumerate(learned)
    ]
    walks, most, patience = walks_of(params, kind, pack.classes, pack.task, scratch)
    with progress("head: training", most, "candidates") as bar:
        of_held = Held(pack.targets(held), held_weights(pack, held, params), pack.task)
        found = search(walks, folds, of_held, select, patience, bar.add)
    head = found.head or train(kind, found.chosen.settings, pack, pack.rows("train"), params, scratch)
    return Choice(kind, found, held, fold_M, head)


def held_weights(pack: FeatureSet, held: Rows, params: HeadParams) -> Double:
    """Of the images held out, times their classes': a candidate is chosen for what it is trained for."""
    return weigh(pack.weights(held), pack.targets(held), pack.classes, params.class_weight)


def class_weights(pack: FeatureSet, params: HeadParams) -> Double | None:
    """What the weight of a training image of each class is multiplied by, (K,); None if classes have no weights."""
    train = pack.rows("train")
    return weight_by_class(pack.weights(train), pack.targets(train), pack.classes, params.class_weight)


def _check_images(pack: FeatureSet, params: HeadParams) -> None:
    """See `choose`; once for all folds."""
    train_rows = pack.rows("train")
    if not len(train_rows):
        raise DataError("no image is in the split train", todo="put images into the split train")
    if pack.task == "classification" and len(pack.classes) < 2:
        raise DataError(
            "all images have the same label",
            got=", ".join(pack.classes),
            allowed="at least two classes",
            todo="add images of another class",
        )
    examples_of(pack, train_rows, params)
    features, rows = pack.with_views(pack.rows("train", "val"))
    check_finite(features, pack.index["path"].to_numpy()[rows])


def train(
    kind: Kind,
    settings: dict[str, float],
    pack: FeatureSet,
    rows: Rows,
    params: HeadParams,
    scratch: Path | None = None,
) -> Head:
    """One candidate, trained on these rows of the pack, whose features `choose` has checked."""
    examples = examples_of(pack, rows, params)
    estimator = estimator_of(params, kind, pack.classes, pack.task, settings, scratch)
    return estimator.learn(examples).head_


def hold_out(pack: FeatureSet, params: HeadParams) -> tuple[Rows, Rows, list[Rows]]:
    """(held-out rows, the fold of each, the training rows of each fold).

    Raises:
        ParamsError: there is no image to hold out, or there are too few units for two folds.
    """
    val_rows, both = pack.rows("val"), pack.rows("train", "val")
    folds = (FOLDS if len(val_rows) < FEW else 0) if params.folds == "auto" else params.folds
    if folds == 0 and not len(val_rows):
        raise ParamsError(
            "`head.folds` is 0, which chooses on validation images, but there are none",
            got="0",
            allowed="auto, or 2 and more",
            todo="set `head.folds: auto`, or give images to the split val",
        )
    fold_N = assign(pack, both, folds, params.seed) if folds else np.full(len(both), -1)
    if len(set(fold_N) - {-1}) < 2:
        if params.folds in ("auto", 0) and len(val_rows):
            return val_rows, np.zeros(len(val_rows), np.int64), [pack.rows("train")]
        raise ParamsError(
            "`head.folds` needs images, or groups of them, for at least two folds",
            got=f"{len(both)} images in {len(units_of(pack, both)[1])} groups",
            todo="set `head.folds: 0`, or add images",
        )
    fold_N = np.unique(fold_N, return_inverse=True)[1] - int((fold_N < 0).any())  # some may be empty
    held = np.argsort(fold_N, kind="stable")[np.count_nonzero(fold_N < 0) :]
    return both[held], fold_N[held], [both[fold_N != fold] for fold in range(fold_N.max() + 1)]


def examples_of(pack: FeatureSet, rows: Rows, params: HeadParams) -> Examples:
    """The images of these rows and the augmented views of training images. The weight of an image is divided among it
    and its views, so that it counts as much as an image without views."""
    features, rows = pack.with_views(rows)
    weight_N = pack.weights(rows) / np.bincount(rows, minlength=1)[rows]
    examples = accept(features, pack.targets(rows), weight_N, pack.classes, pack.task)
    weight_N = weigh(examples.weight_N, examples.target, pack.classes, params.class_weight)
    return Examples(examples.features_ND, examples.target, weight_N)


def select_of(params: HeadParams, task: Task) -> str:
    """`auto` is the log loss for classes and the root of the mean squared error for numbers.

    Raises:
        ParamsError: `head.select` is not a metric for this task.
    """
    loss = "rmse" if task == "regression" else "log_loss"
    allowed = (loss, *(metric.key for metric in METRICS[task]))
    if params.select == "auto":
        return loss
    if params.select not in allowed:
        raise ParamsError(
            "`head.select` is not a metric for this task",
            got=f"{params.select}, where `head.task` is {task}",
            allowed=" | ".join(("auto", *allowed)),
            todo="set `head.select: auto`",
        )
    return params.select


def deciding_metric(params: HeadParams, task: Task) -> str:
    """The key of the metric of `METRICS` by which later stages decide between models: `head.select` if it is one of
    them, otherwise balanced accuracy where classes have weights, otherwise the main metric of the task."""
    if params.select in [metric.key for metric in METRICS[task]]:
        return params.select
    return MAIN[task].key if params.class_weight == "none" else "balanced_accuracy"
