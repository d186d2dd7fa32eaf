"""Calibration of the output of a head, and the decisions made with it. N images, K classes.

Fitted on validation by `scoring/temperature.py`, saved beside the head, part of a packaged model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..core.blocks import blocks
from ..core.files import read_json, write_json
from .base import decide, softmax

if TYPE_CHECKING:
    from ..data.task import Task

Floats = npt.NDArray[np.float64]

FILE = "calibration.json"

TINY = float(np.finfo(np.float64).tiny)

OF_DECISIONS = ("accuracy", "balanced_accuracy", "f1_macro", "kappa")
"""The metrics of `data/task.py: METRICS` that count decisions; the others rank images or take numbers."""


@dataclass(frozen=True)
class Calibration:
    """How the output of a head becomes probabilities, decisions, intervals and sets; the default changes nothing.

    One class per image: softmax(log p / T + b), temperature scaling (Guo et al. 2017) with, if the head was trained
    with class weights, a bias per class that gives back the true shares of the classes. Several: sigmoid(logit(p) / T),
    with a temperature per class.

    Attributes:
        temperature: T; above 1 lowers the confidence.
        zero: the value of smaller probabilities: a head of nearest neighbours gives 0 to unseen classes.
        each: whether every class is independent (several classes per image).
        threshold: the model answers if its score, the probability of its label, is above it; None: always.
        max_error: the requested error rate.
        confidence: with which the threshold guarantees it.
        scaled: whether a temperature was requested.
        bias: b, (K,); None: 0.
        decision_weights: (K,); the label is the class with the largest probability times weight, which is also the
            label of the head itself: nearly the class weights. None: all are 1.
        class_weights: (K,), those that the head was trained with; None without.
        temperatures: (K,) instead of `temperature`, if every class is independent.
        thresholds: (K,) a class is predicted from this probability on; None: from 0.5 on.
        margin: of a number: the interval is this much to both sides. None: there is none.
        interval_confidence: the share of images whose number is in the interval.
        set_least: a class is in the prediction set if the decision gives it this probability or more; None: no sets.
        set_confidence: the share of images whose class is in the set.
        metrics: the metrics on validation.
    """

    temperature: float = 1.0
    zero: float = TINY
    each: bool = False
    threshold: float | None = None
    max_error: float | None = None
    confidence: float | None = None
    scaled: bool = False
    bias: list[float] | None = None
    decision_weights: list[float] | None = None
    class_weights: list[float] | None = None
    temperatures: list[float] | None = None
    thresholds: list[float] | None = None
    margin: float | None = None
    interval_confidence: float | None = None
    set_least: float | None = None
    set_confidence: float | None = None
    max_false_alarm: float | None = None
    guarantee: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether the requested error rate and prediction sets can be guaranteed."""
        sets = self.set_confidence is None or self.set_least is not None
        return sets and (self.max_error is None or self.threshold is not None)

    def apply(self, p_NK: Floats) -> Floats:
        """Calibrated probabilities (N, K), from those of the head; numbers (N, 1) stay as they are."""
        if self.temperature == 1.0 and self.temperatures is None and self.bias is None:
            return p_NK
        scaled_NK = np.empty(p_NK.shape)
        for rows in blocks(len(p_NK)):
            scaled_NK[rows] = self._scale(p_NK[rows])
        return scaled_NK

    def _scale(self, p_BK: Floats) -> Floats:
        if self.each:
            t_K = self.temperature if self.temperatures is None else np.array(self.temperatures)
            t_Q1 = np.broadcast_to(t_K, p_BK.shape).reshape(-1, 1)
            return softmax(log_of(two_way(p_BK), self.zero) / t_Q1)[:, 1].reshape(p_BK.shape)
        logits_BK = log_of(p_BK, self.zero) / self.temperature
        return softmax(logits_BK if self.bias is None else logits_BK + np.array(self.bias))

    def weighed(self, p_NK: Floats) -> Floats:
        """Calibrated probabilities (N, K) as the decision weighs them: the label is the class with the largest one, and
        of several classes those with 0.5 or more are predicted. Numbers (N, 1) stay as they are.

        One class: p w / sum(p w), the decision of the least cost if mistaking class k costs w_k (Elkan 2001). Several:
        the odds are divided by those of the threshold, which keeps the order of the images within a class.
        """
        if self.decision_weights is not None:
            cost_NK = p_NK * np.array(self.decision_weights)
            return cost_NK / cost_NK.sum(axis=1, keepdims=True)
        if self.thresholds is not None:
            t_K = np.array(self.thresholds)
            yes_NK = p_NK * (1 - t_K)
            return yes_NK / (yes_NK + (1 - p_NK) * t_K)
        return p_NK

    def judged(self, p_NK: Floats, metric: str) -> Floats:
        """What a metric of `data/task.py: METRICS` must be given: for one that counts decisions, the weighed
        probabilities; otherwise the calibrated ones as they are."""
        return self.weighed(p_NK) if metric in OF_DECISIONS else p_NK

    def decide(self, p_NK: Floats, task: Task) -> npt.NDArray[Any]:
        """The predictions for calibrated probabilities: codes (N,), zeros and ones (N, K), or numbers (N,)."""
        return decide(self.weighed(p_NK), task)

    def score(self, p_NK: Floats) -> Floats:
        """(N,), the calibrated probability of the label."""
        return p_NK[np.arange(len(p_NK)), self.decide(p_NK, "classification")]

    def answers(self, p_NK: Floats) -> npt.NDArray[np.bool_]:
        """For which images the model answers, by its calibrated probabilities, shape (N,)."""
        return self.score(p_NK) > (-np.inf if self.threshold is None else self.threshold)

    def sets(self, p_NK: Floats) -> npt.NDArray[np.bool_]:
        """Which classes are in the prediction set of each image, (N, K); the label always is.

        Raises:
            ValueError: there are no prediction sets.
        """
        if self.set_least is None:
            raise ValueError("this calibration has no prediction sets; set `head.set_confidence`")
        weighed_NK = self.weighed(p_NK)
        return weighed_NK >= np.minimum(self.set_least, weighed_NK.max(axis=1, keepdims=True))

    def ends(self, output_N1: Floats) -> tuple[Floats, Floats]:
        """(low, high), both (N,): the interval of each number.

        Raises:
            ValueError: there are no intervals.
        """
        if self.margin is None:
            raise ValueError("this calibration has no intervals: too few independent images, or another task")
        return output_N1[:, 0] - self.margin, output_N1[:, 0] + self.margin

    def promise(self) -> dict[str, Any]:
        """What is guaranteed, in words and numbers; empty without a guarantee.

        The guarantees are about the model that was selected on the held-out images, before any refit.
        """
        found: dict[str, Any] = {}
        if self.max_false_alarm is not None:
            return self._of_false_alarms()
        if self.threshold is not None:
            text = (
                f"of the images with a score above {self.threshold:.4g}, at most {self.max_error:.2%} get a wrong "
                f"label, with {self.confidence:.0%} confidence, if they are like the validation images, whose groups "
                "are independent; for the selected model before any refit, whose strength and temperature these "
                "images chose too"
            )
            found |= {"threshold": self.threshold, "promise": text}
        if self.margin is not None:
            found |= {"interval_margin": self.margin, "interval_confidence": self.interval_confidence}
        if self.set_least is not None:
            found["set_confidence"] = self.set_confidence
        return found

    def _of_false_alarms(self) -> dict[str, Any]:
        if self.threshold is None or self.guarantee == "none":
            return {}
        kept = f"with {self.confidence:.0%} confidence" if self.guarantee == "bound" else "on average"
        text = (
            f"at most {self.max_false_alarm:.2%} of good images have a score above {self.threshold:.4g}, {kept}, if "
            "they are like the good images that were held out"
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
