"""Calibration of the probabilities of a head, and abstention. N images, K classes.

Fitted on validation by `scoring/temperature.py`, saved beside the head, part of a packaged model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
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
    """Temperature scaling (Guo et al. 2017) and a threshold on the score; the default does neither.

    Attributes:
        temperature: T in softmax(log p / T), or with several classes per image in sigmoid(logit(p) / T); above 1 lowers
            the confidence. The predicted labels stay the same.
        zero: the value of smaller probabilities: a head of nearest neighbours gives 0 to unseen classes.
        each: whether every class is independent (several classes per image).
        threshold: the model answers if its score, the largest probability, is above it; None: always.
        max_error: the requested error rate.
        confidence: with which the threshold guarantees it.
        scaled: whether a temperature was requested.
        metrics: the metrics on validation.
    """

    temperature: float = 1.0
    zero: float = TINY
    each: bool = False
    threshold: float | None = None
    max_error: float | None = None
    confidence: float | None = None
    scaled: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether the requested error rate can be guaranteed."""
        return self.max_error is None or self.threshold is not None

    def apply(self, p_NK: Floats) -> Floats:
        """Calibrated probabilities (N, K), from those of the head."""
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
        """For which images the model answers, by its calibrated probabilities, shape (N,)."""
        return p_NK.max(axis=1) > (-np.inf if self.threshold is None else self.threshold)

    def promise(self) -> dict[str, Any]:
        """The threshold and its guarantee in words; empty without a threshold.

        The guarantee is about the model that was selected on the held-out images, before any refit.
        """
        if self.threshold is None:
            return {}
        text = (
            f"of the images with a score above {self.threshold:.4g}, at most {self.max_error:.2%} get a wrong label, "
            f"with {self.confidence:.0%} confidence, if they are like the validation images and these are independent; "
            "for the selected model before any refit, whose strength and temperature these images chose too"
        )
        return {"threshold": self.threshold, "promise": text}

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """From the folder of a head; the default if there is none. Keys that only other versions wrote are ignored: the
        champion's package may be older than this code."""
        found = read_json(folder / FILE) if (folder / FILE).is_file() else {}
        return cls(**{one.name: found[one.name] for one in fields(cls) if one.name in found})


def log_of(p_NK: Floats, zero: float) -> Floats:
    """Logits of probabilities, up to a constant per row."""
    return np.log(np.maximum(p_NK, zero))


def two_way(p_NK: Floats) -> Floats:
    """(N, K) independent classes as N * K rows of two, no and yes: softmax(log p / T) is sigmoid(logit(p) / T)."""
    p = p_NK.reshape(-1)
    return np.stack([1 - p, p], axis=1)
