"""The models of the audit, trained on subsets of the images. N images, D features, K classes.

The output of a model is (N, K), probabilities of the classes, or (N, 1) for regression. It is logistic regression or
ridge regression, with the strength that the stage `head` chose if its head is of that kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.data.feature_set import FeatureSet, Rows
from ..common.data.matrix import Matrix
from ..common.heads.linear import LinearHead
from ..common.solvers.blas import one_thread_a_product
from ..common.solvers.logistic import Parts
from ..common.solvers.objective import Link
from .whitening import BLOCK

Floats = npt.NDArray[np.float64]

USUAL_L2 = 0.01
"""Used if the head has no such strength; from 0.002 to 0.05, much the same labels of hand signs were suspected."""

TOLERANCE = 1e-4
"""Of the gradient: the audit needs no more."""


@dataclass(frozen=True)
class Probe:
    """Trains and predicts.

    Attributes:
        pack: the images to train on and to predict.
        l2: the strength of the penalty, on the mean loss.
        parts: the features of all training and validation images, and of their augmented views.
        row_of_part: the row of the feature set of each part.
    """

    pack: FeatureSet
    l2: float
    parts: Parts
    row_of_part: Rows

    @classmethod
    def of(cls, pack: FeatureSet, l2: float, scratch: Path) -> Probe:
        """Rotates all training and validation images into their principal axes, which standardise every subset. Labels
        are not used.

        Args:
            scratch: a folder for data that do not fit into memory.
        """
        features, rows = pack.with_views(pack.rows("train", "val"))
        link: Link = "sigmoid" if pack.task == "multilabel" else "softmax"
        return cls(pack, l2, Parts(features, weights_of(pack, rows), link, scratch), rows)

    def __call__(self, learned: Rows, asked: Rows, factor: float = 1.0) -> Floats:
        """The output for rows `asked` of a model trained on rows `learned` and their augmented views, at `factor` times
        the strength. A class without training images gets 0."""
        places = np.flatnonzero(np.isin(self.row_of_part, learned))
        train = self._ridge if self.pack.task == "regression" else self._logistic
        # Decompositions on two threads took up to nine times as long as on one when the cores had other work; the
        # products inside have their own threads.
        with one_thread_a_product():
            return train(places, self.l2 * factor)(self.pack.matrix(asked))

    def _logistic(self, places: Rows, l2: float) -> Callable[[Matrix], Floats]:
        """Softmax, or sigmoids for several classes per image; a class of all images or of none is not fitted."""
        pack, rows = self.pack, self.row_of_part[places]
        target, k = pack.targets(rows), len(pack.classes)
        several = pack.task == "multilabel"
        share_K = target.mean(axis=0) if several else np.bincount(target, minlength=k) / len(target)
        fitted = np.flatnonzero((share_K > 0) & (share_K < 1))
        if not len(fitted):
            return lambda asked_MD: np.tile(share_K, (asked_MD.shape[0], 1))
        step = self.parts.fit(
            places,
            target[:, fitted] if several else np.searchsorted(fitted, target),
            weights_of(pack, rows),
            len(fitted),
            l2,
            tolerance=TOLERANCE,
        )
        head = LinearHead(step.weight_KD, step.bias_K, [pack.classes[place] for place in fitted], pack.task)

        def ask(asked_MD: Matrix) -> Floats:
            output_MK = np.tile(np.where(share_K == 1, 1.0, 0.0), (asked_MD.shape[0], 1))
            output_MK[:, fitted] = head.output(asked_MD)
            return output_MK

        return ask

    def _ridge(self, places: Rows, l2: float) -> Callable[[Matrix], Floats]:
        """(C + l2) w = c in the principal axes, with C the covariance of the features and c that with the target."""
        turned, rows = self.parts.rows(places), self.row_of_part[places]
        weight, target = weights_of(self.pack, rows), self.pack.targets(rows)
        share = weight / weight.sum()
        mean = float(share @ target)
        centre = share.astype(np.float32) @ turned
        covariance, with_target = np.zeros((turned.shape[1],) * 2), np.zeros(turned.shape[1])
        for block in blocks(len(turned), BLOCK):
            centred = turned[block] - centre
            scaled = (centred * share[block, None]).astype(np.float64)
            covariance += scaled.T @ centred
            with_target += scaled.T @ (target[block] - mean)
        weights = np.linalg.solve(covariance + l2 * np.eye(len(covariance)), with_target)
        weight_1D, bias_1 = self.parts.basis.out_of(np.append(weights, mean - centre @ weights)[:, None])
        return LinearHead(weight_1D, bias_1, [], "regression").output


def weights_of(pack: FeatureSet, rows: Rows) -> Floats:
    """The weight of an image is divided among it and its views, as in the stage `head`."""
    return pack.weights(rows) / np.bincount(rows, minlength=1)[rows]
