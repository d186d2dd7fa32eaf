"""The audit's own models, on parts of the images. N images, D features, K classes.

What a model puts out is (N, K): probabilities of the classes, or (N, 1), a number. Classes are told by logistic
regression, numbers by ridge regression, at the strength that the stage `head` chose if its head is of that kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..common.core.blocks import blocks
from ..common.data.feature_set import FeatureSet, Rows
from ..common.heads.linear import LinearHead
from ..common.solvers.blas import one_thread_a_product
from ..common.solvers.logistic import Parts
from ..common.solvers.objective import Link
from .whitening import BLOCK

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

USUAL_L2 = 0.01
"""Where the head has no strength of its own; from 0.002 to 0.05, hand signs gave much the same suspects."""

TOLERANCE = 1e-4
"""Of the gradient: nothing that is asked of these models needs more."""


@dataclass(frozen=True)
class Probe:
    """Trains and asks.

    Attributes:
        pack: what is learned from and predicted.
        l2: the penalty's strength, on the mean loss.
        parts: the features of all training and validation images, and of their augmented views.
        row_of_part: of which of the pack's rows each is.
    """

    pack: FeatureSet
    l2: float
    parts: Parts
    row_of_part: Rows

    @classmethod
    def of(cls, pack: FeatureSet, l2: float, scratch: Path) -> Probe:
        """Turns all training and validation images into their principal axes, by which every part is standardised;
        labels have no part in it.

        Args:
            scratch: a folder for what does not fit into memory.
        """
        features, rows = pack.with_views(pack.rows("train", "val"))
        link: Link = "sigmoid" if pack.task == "multilabel" else "softmax"
        return cls(pack, l2, Parts(features, pack.weights(rows), link, scratch), rows)

    def __call__(self, learned: Rows, asked: Rows, factor: float = 1.0) -> Floats:
        """What a model of rows `learned`, and of their augmented views, says of rows `asked`; at `factor` times the
        strength. A class that it has not seen gets 0."""
        places = np.flatnonzero(np.isin(self.row_of_part, learned))
        train = self._ridge if self.pack.task == "regression" else self._logistic
        # Decompositions on two threads took up to nine times as long as on one when the cores had other work besides;
        # the products inside have threads of their own.
        with one_thread_a_product():
            return train(places, self.l2 * factor)(self.pack.features(asked))

    def _logistic(self, places: Rows, l2: float) -> Callable[[Singles], Floats]:
        """Of one class an image by softmax, of several by sigmoids; a class that is always or never there is not
        fitted."""
        pack, rows = self.pack, self.row_of_part[places]
        target, k = pack.targets(rows), len(pack.classes)
        several = pack.task == "multilabel"
        share_K = target.mean(axis=0) if several else np.bincount(target, minlength=k) / len(target)
        fitted = np.flatnonzero((share_K > 0) & (share_K < 1))
        if not len(fitted):
            return lambda asked_MD: np.tile(share_K, (len(asked_MD), 1))
        step = self.parts.fit(
            places,
            target[:, fitted] if several else np.searchsorted(fitted, target),
            pack.weights(rows),
            len(fitted),
            l2,
            tolerance=TOLERANCE,
        )
        head = LinearHead(step.weight_KD, step.bias_K, [pack.classes[place] for place in fitted], pack.task)

        def ask(asked_MD: Singles) -> Floats:
            output_MK = np.tile(np.where(share_K == 1, 1.0, 0.0), (len(asked_MD), 1))
            output_MK[:, fitted] = head.output(asked_MD)
            return output_MK

        return ask

    def _ridge(self, places: Rows, l2: float) -> Callable[[Singles], Floats]:
        """(C + l2) w = c in the features' principal axes, C their covariance and c that with the number."""
        turned, rows = self.parts.rows(places), self.row_of_part[places]
        weight, target = self.pack.weights(rows), self.pack.targets(rows)
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
