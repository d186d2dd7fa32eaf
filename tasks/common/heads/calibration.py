"""What is done to a head's probabilities before anyone sees them, and when the model rather says nothing.

Of N images and K classes. Found on validation by `calibrating.py`; kept beside the head; part of a packaged model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks
from ..core.files import read_json, write_json
from .base import softmax

Floats = npt.NDArray[np.float64]

FILE = "calibration.json"

TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling (Guo et al. 2017) and a threshold on the score; the default changes and withholds nothing.

    Attributes:
        temperature: T in softmax(log p / T), or for several classes an image in sigmoid(logit(p) / T); above 1 makes
            less sure. No image gets another label by it.
        zero: what smaller probabilities count as: a neighbour's head says 0 of what it has not seen.
        each: whether each class is a question of its own (several classes an image).
        threshold: the model answers where its score, the largest probability, is above it; None: always.
        max_error: the share of wrong answers that was asked for.
        confidence: with which the threshold keeps it.
        scaled: whether a temperature was asked for.
        figures: from which the above was made, and what it comes to.
    """

    temperature: float = 1.0
    zero: float = TINY
    each: bool = False
    threshold: float | None = None
    max_error: float | None = None
    confidence: float | None = None
    scaled: bool = False
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether what was asked for can be promised."""
        return self.max_error is None or self.threshold is not None

    def apply(self, p_NK: Floats) -> Floats:
        """Calibrated probabilities (N, K) of a head's."""
        if self.temperature == 1.0:
            return p_NK
        scaled_NK = np.empty(p_NK.shape)
        for rows in blocks(len(p_NK)):
            scaled_NK[rows] = self._scale(p_NK[rows])
        return scaled_NK

    def _scale(self, p_BK: Floats) -> Floats:
        if self.each:
            return softmax(log_of(two_way(p_BK), self.zero) / self.temperature)[:, 1].reshape(p_BK.shape)
        return softmax(log_of(p_BK, self.zero) / self.temperature)

    def answers(self, p_NK: Floats) -> npt.NDArray[np.bool_]:
        """Of which images the model says something, by its calibrated probabilities, shape (N,)."""
        return p_NK.max(axis=1) > (-np.inf if self.threshold is None else self.threshold)

    def promise(self) -> dict[str, Any]:
        """Threshold and what it promises, in words for people; empty without one.

        It is a promise of the model that the held-out images chose, before any refit.
        """
        if self.threshold is None:
            return {}
        said = (
            f"of the images with a score above {self.threshold:.4g}, at most {self.max_error:.2%} get a wrong label, "
            f"with {self.confidence:.0%} confidence, if they are like the validation images and these independent; "
            "said of the model selected, before any refit, by images that chose its strength and temperature too"
        )
        return {"threshold": self.threshold, "promise": said}

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """What lies beside a head; the default where nothing does."""
        return cls(**read_json(folder / FILE)) if (folder / FILE).is_file() else cls()


def log_of(p_NK: Floats, zero: float) -> Floats:
    """Logits of probabilities, up to a constant a row."""
    return np.log(np.maximum(p_NK, zero))


def two_way(p_NK: Floats) -> Floats:
    """K questions an image as N * K images of two classes, no and yes: softmax(log p / T) is sigmoid(logit(p) / T)."""
    p = p_NK.reshape(-1)
    return np.stack([1 - p, p], axis=1)
