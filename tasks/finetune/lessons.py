"""What each training of the stage learns from, chooses its epoch by, and is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.folds import assign
from ..common.data.units import units_of
from .params import FinetuneParams

INNER = 5
"""One in so many of the images that a training has is held out from it, to choose its rate and its epoch by."""

FEW, FOLDS = {"auto": 1000, "on": 100, "off": 100}, 5
"""With fewer validation units than `FEW`, `finetune.folds: auto` decides by held-out images of `FOLDS` folds. By mode:
`auto` has a budget, and gives the folds up if they do not fit into it. By 300 validation images alone, a network that
is 2 points better is kept in half of the simulated cases only."""

MAIN, REFIT = "main", "refit"


@dataclass(frozen=True)
class Lesson:
    """Rows of the feature set.

    Attributes:
        name: `main`, `fold 0` and so on, or `refit`.
        learned: the images whose gradients are followed.
        inner: those that choose rate and epoch; none for the refit, which repeats what was chosen.
        judged: those that nothing of this training has seen.
    """

    name: str
    learned: Rows
    inner: Rows
    judged: Rows

    @property
    def known(self) -> Rows:
        """All that this training has used."""
        return np.sort(np.concatenate([self.learned, self.inner]))


def main_lesson(pack: FeatureSet, seed: int) -> Lesson:
    """The training of the network that is compared on the validation images."""
    return Lesson(MAIN, *_inner_split(pack, pack.rows("train"), seed), pack.rows("val"))


def fold_lessons(pack: FeatureSet, folds: int, seed: int) -> list[Lesson]:
    """Trainings that hold out one fold each of the training and validation images; fewer than two are none."""
    if not folds:
        return []
    both = pack.rows("train", "val")
    fold_N = assign(pack, both, folds, seed)
    held = [both[fold_N == fold] for fold in range(folds) if (fold_N == fold).any()]
    if len(held) < 2:
        return []
    return [
        Lesson(f"fold {n}", *_inner_split(pack, np.setdiff1d(both, judged), seed), judged)
        for n, judged in enumerate(held)
    ]


def refit_lesson(pack: FeatureSet) -> Lesson:
    """Training and validation images, once all is decided."""
    nothing = np.empty(0, np.int64)
    return Lesson(REFIT, pack.rows("train", "val"), nothing, nothing)


def folds_of(params: FinetuneParams, pack: FeatureSet) -> int:
    """The number of folds, 0 for none."""
    if params.folds != "auto":
        return params.folds
    return FOLDS if len(units_of(pack, pack.rows("val"))[1]) < FEW[params.mode] else 0


def lesson_named(name: str, pack: FeatureSet, params: FinetuneParams) -> Lesson:
    """The same lesson in another process."""
    if name == REFIT:
        return refit_lesson(pack)
    lessons: Sequence[Lesson] = [
        main_lesson(pack, params.seed),
        *fold_lessons(pack, folds_of(params, pack), params.seed),
    ]
    return {lesson.name: lesson for lesson in lessons}[name]


def weighed(pack: FeatureSet, class_weights: npt.ArrayLike | None) -> FeatureSet:
    """The feature set with each image's weight times that of its class, as the head learned it.

    Args:
        class_weights: K of them, in the order of the classes; none where classes have no weights.
    """
    if class_weights is None:
        return pack
    rows = np.arange(len(pack.index))
    weight_N = pack.weights(rows) * np.asarray(class_weights)[pack.labels(rows)]
    return replace(pack, index=pack.index.assign(weight=weight_N))


def _inner_split(pack: FeatureSet, rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """(learned, inner): a stratified part of the units; none where there are too few of them."""
    fold_N = assign(pack, rows, INNER, seed)
    held = fold_N[fold_N >= 0]
    inner_N = fold_N == (np.bincount(held).argmax() if len(held) else INNER)
    if not (~inner_N).any():
        return rows, rows[:0]
    return rows[~inner_N], rows[inner_N]
