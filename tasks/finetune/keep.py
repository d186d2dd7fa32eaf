"""Whether the fine-tuned network is kept. Pure: outputs for held-out images in, a verdict in words out.

Two one-sided tests ask whether it is better, both over independent units: one of the metric that decides, one of the
log loss, a proper score, which uses more of each output and so needs fewer images (Gneiting and Raftery 2007). Simes'
method (1986) combines them, so that a network that is no better is kept with at most the probability `significance`
(the two are positively dependent, for which it holds: Sarkar 1998). A better log loss alone is not enough where the
metric may have become worse: it must be non-inferior, by `margin`.

N images, K classes; outputs are probabilities (N, K), or numbers (N, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # loads its parts, up to half a second each, when they are first used

from ..common.data.task import LOSS, Task
from ..common.scoring.paired import Paired, compare, outcome
from .scaling import cross_scaled, losses

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Held:
    """Images that neither model has seen.

    Attributes:
        target: see `FeatureSet.targets`.
        weight_N: of each image, times that of its class.
        unit_N: the independent unit of each, see `data/units.py`.
    """

    target: npt.NDArray[Any]
    weight_N: Floats
    unit_N: Ints
    task: Task


@dataclass(frozen=True)
class Rule:
    """Attributes:
    metric: a key of `METRICS`.
    significance: the largest p at which the fine-tuned network is kept.
    margin: by which the metric may be worse, in its unit, where only the log loss is better.
    """

    metric: str
    significance: float
    margin: float


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    chosen: `head` or `finetune`.
    reason: one sentence.
    p: of both tests together.
    paired: of the metric.
    head_loss, tuned_loss: the mean loss, after scaling by a temperature from the other half of the images.
    p_loss: of the test of the loss.
    """

    chosen: str
    reason: str
    p: float
    paired: Paired
    head_loss: float
    tuned_loss: float
    p_loss: float


def whether_to_keep(head: Floats, tuned: Floats, held: Held, rule: Rule, keeps_promise: bool = True) -> Verdict:
    """Compares the outputs of both for the same held-out images.

    Args:
        keeps_promise: whether the fine-tuned network can guarantee `head.max_error` and `head.set_confidence`, as the
            head can.
    """
    of_both = head, tuned, held.target, held.unit_N, held.task
    paired = compare(*of_both, metric=rule.metric, significance=rule.significance)
    head_N, tuned_N = scaled_losses(head, held), scaled_losses(tuned, held)
    p_loss = p_of_less(head_N - tuned_N, held.weight_N, held.unit_N)
    p = simes(paired.p_better, p_loss)
    share_N = held.weight_N / held.weight_N.sum()
    head_loss, tuned_loss = float(share_N @ head_N), float(share_N @ tuned_N)
    chosen, finding = _finding(paired, p, rule, keeps_promise)
    metric = paired.metric
    told = (
        f"{metric.title} {paired.second:.4f} against the frozen head's {paired.first:.4f}, scaled "
        f"{LOSS[held.task].replace('_', ' ')} {tuned_loss:.4f} against {head_loss:.4f}, on {paired.images} held-out "
        f"images (paired tests: p = {paired.p_better:.2g} and {p_loss:.2g}, together {p:.2g})"
    )
    return Verdict(chosen, f"{finding}: {told}", p, paired, head_loss, tuned_loss, p_loss)


def _finding(paired: Paired, p: float, rule: Rule, keeps_promise: bool) -> tuple[str, str]:
    """(chosen, why)"""
    if p > rule.significance:
        return "head", "fine-tuned is better by no more than chance explains"
    if outcome(paired, rule.margin).says not in ("better", "not worse"):
        title, margin = paired.metric.title, f"{rule.margin:g}"
        return "head", (
            f"fine-tuned has the better log loss, but {title} may be worse by {-paired.low:.4f}, which is more than "
            f"`finetune.margin`, {margin}"
        )
    if not keeps_promise:
        return "head", "fine-tuned is better, but cannot guarantee `head.max_error` or `head.set_confidence`"
    return "finetune", "fine-tuned is better"


def scaled_losses(output: Floats, held: Held) -> Floats:
    """The loss of each image, (N,), after cross-fitted scaling."""
    scaled = cross_scaled(output, held.target, held.weight_N, held.unit_N, held.task)
    return losses(scaled, held.target, held.task)


def p_of_less(gain_N: Floats, weight_N: Floats, unit_N: Ints) -> float:
    """One-sided p of the hypothesis that the weighted mean of the gains is not above 0: a t test of the sums of the
    units, with the variance that they have under it (the sums are then symmetric about 0), so that one unit with a
    huge gain proves nothing."""
    sum_U = np.bincount(np.unique(unit_N, return_inverse=True)[1], weights=gain_N * weight_N)
    units, spread = len(sum_U), float(np.sqrt((sum_U**2).sum()))
    if spread == 0 or units < 2:
        return 1.0
    t = float(sum_U.sum()) / spread
    return float(scipy.special.stdtr(units - 1, -t * np.sqrt((units - 1) / max(units - t * t, 1e-12))))


def simes(first: float, second: float) -> float:
    """The p of the hypothesis that neither test's hypothesis is false (Simes 1986)."""
    return min(2 * min(first, second), max(first, second))
