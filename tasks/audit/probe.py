"""The audit's own models, on parts of the images. N images, D features, K classes.

What a model puts out is (N, K): probabilities of the classes, or (N, 1), a number. They are those of the stage `head` at
its strength where that has one: logistic regression, for numbers ridge regression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..common.basis import rotate
from ..common.heads import LinearHead
from ..common.logistic import fit
from ..common.pack import Pack, Rows
from ..common.files import read_json
from .parts import folds, strata, units

Floats = npt.NDArray[np.float64]

USUAL_L2 = 0.01
"""Where the head has no strength of its own; from 0.002 to 0.05, hand signs gave the same suspects."""

TOLERANCE = 1e-4
"""Of the gradient: nothing that is asked of these models needs more."""


@dataclass(frozen=True)
class Probe:
    """Args:
    pack: what is learned from and predicted.
    l2: the penalty's strength, on the mean loss.
    scratch: a folder for what does not fit into memory.
    """

    pack: Pack
    l2: float
    scratch: Path

    def __call__(self, learned: Rows, asked: Rows, factor: float = 1.0) -> Floats:
        """What a model of rows `learned`, and of their augmented views, says of rows `asked`; at `factor` times the
        strength. A class that it has not seen gets 0."""
        features, rows = self.pack.with_views(learned)
        return _head(self.pack, features, rows, self.l2 * factor, self.scratch).output(self.pack.features(asked))
