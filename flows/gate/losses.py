"""What a challenger may have lost: the checks that fail only if a loss is beyond chance.

All of these tests share `gate.significance` by Holm's method, so that a challenger that equals the champion is refused
with at most this probability, whatever the number of checks and classes. N images, K classes, B resamples, M bins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from graft.tasks.common.core.words import listed
from graft.tasks.common.scoring.paired import Paired, compare, more_images
from graft.tasks.common.scoring.ranking import average_precisions, mean_average_precisions, rankings_of
from graft.tasks.common.scoring.resampling import Counts, restored_tail, statistics

from ..runtime.params import GateParams
from .contest import BY_CLASS, Bools, Check, Contest, Floats, Ints

BINS = 15
"""Of the calibration error."""

RESAMPLES = 2000
"""Of the bootstrap."""

SEED = 0
"""Of the bootstrap."""


@dataclass(frozen=True)
class Loss:
    """A check that fails if its test is significant.

    Attributes:
        p: one-sided, of the test that nothing was lost; 1 for no loss that matters.
        unsure: why the images are too few to tell, if the loss is not significant and the check has not passed either.
        names: see `Check`.
    """

    name: str
    p: float
    found: str
    allowed: str
    unsure: str = ""
    names: dict[str, list[str]] = field(default_factory=dict)

    def check(self, significant: bool) -> Check:
        if significant or not self.unsure:
            return Check(self.name, "failed" if significant else "passed", self.found, self.allowed, self.names)
        return Check(self.name, "too few images", f"{self.found}; {self.unsure}", self.allowed, self.names)


def losses(contest: Contest, params: GateParams) -> list[Loss]:
    """All of them that these images allow to test."""
    found = [gain(contest, params)] if params.rule == "not_worse" else []
    found += [earlier(contest, params)] if contest.earlier_N.any() else []
    return found + ([classes(contest, params), calibration(contest, params)] if contest.task in BY_CLASS else [])


def paired(contest: Contest, significance: float) -> Paired:
    """The challenger against the champion."""
    challenger, champion = contest.judged(contest.named.key)
    return compare(
        champion,
        challenger,
        contest.target,
        contest.unit_N,
        contest.task,
        metric=contest.metric,
        significance=significance,
    )


def gain_text(found: Paired) -> str:
    return (
        f"{found.difference:+.4f}, at least {found.low:+.4f} at {1 - found.significance:.0%} confidence "
        f"(paired test: better p = {found.p_better:.2g}, worse p = {found.p_worse:.2g})"
    )


def gain(contest: Contest, params: GateParams) -> Loss:
    """Non-inferiority of the metric on all images: the lower bound of the gain is at least minus `gate.margin`."""
    found = paired(contest, params.significance)
    allowed = f"at least {-params.margin:+g} at {1 - params.significance:.0%} confidence"
    if found.low >= -params.margin:
        return Loss("gain", 1.0, gain_text(found), allowed)
    return Loss("gain", found.p_worse, gain_text(found), allowed, too_few(found, params.margin))


def too_few(found: Paired, margin: float) -> str:
    """That there are too few images to tell, and how many more would."""
    if margin <= 0:
        return "too few images to tell: without a margin no number of images shows that nothing was lost"
    if np.isnan(found.low):
        return f"too few images to tell: they do not allow to compute {found.metric.title}"
    return f"too few images to tell; about {more_images(found, margin):,} more test images would"


def earlier(contest: Contest, params: GateParams) -> Loss:
    """On the images that the champion was evaluated on: labels that came with new images cannot confirm themselves."""
    part = contest.of(contest.earlier_N)
    found = paired(part, params.significance)
    text = f"{found.second:.4f} against {found.first:.4f} on {part.size()} (worse p = {found.p_worse:.2g})"
    allowed = f"not worse beyond chance, or by {params.margin:g} at most"
    return Loss("earlier images", 1.0 if found.low >= -params.margin else found.p_worse, text, allowed)


def classes(contest: Contest, params: GateParams) -> Loss:
    """No class is much worse than with the champion: Holm's method over the classes, or the maximum of a bootstrap."""
    own, theirs = (by_class(contest, decided) for decided in contest.decided())
    checked = np.flatnonzero(image_counts(contest) >= params.min_class_images)
    fallen = np.flatnonzero(theirs - own > params.max_class_drop)
    fallen = np.intersect1d(checked, fallen)
    p_C = _class_p(contest, fallen, checked)
    found = {
        contest.classes[k]: f"{contest.classes[k]} {theirs[k]:.3f} to {own[k]:.3f} (p = {p:.2g})"
        for k, p in zip(fallen, p_C, strict=True)
        if p <= params.significance
    }
    allowed = f"no class loses more than {params.max_class_drop:g} of {class_metric(contest)} beyond chance"
    text, names = listed(found.values()) or "none is worse", {"worse": [*found]} if found else {}
    return Loss("classes", float(p_C.min(initial=1.0)), text, allowed, names=names)


def class_metric(contest: Contest) -> str:
    return "recall" if contest.task == "classification" else "average precision"


def by_class(contest: Contest, decided: Floats) -> Floats:
    """Recall, or average precision, (K,); NaN where a class has no test image.

    Args:
        decided: outputs as the decision weighs them; that does not change the order of the images within a class.
    """
    if contest.task == "multilabel":
        return average_precisions(decided, contest.target)
    right_N = decided.argmax(axis=1) == contest.target
    count_K = image_counts(contest).astype(np.float64)
    hits_K = np.bincount(contest.target, weights=right_N, minlength=len(contest.classes))
    return np.divide(hits_K, count_K, out=np.full(len(count_K), np.nan), where=count_K > 0)


def image_counts(contest: Contest) -> Ints:
    """Test images with each class, (K,)."""
    if contest.task == "multilabel":
        return (contest.target > 0).sum(axis=0).astype(np.int64)
    return np.bincount(contest.target, minlength=len(contest.classes)).astype(np.int64)


def _class_p(contest: Contest, fallen: Ints, checked: Ints) -> Floats:
    """The p-values that each of the fallen classes is no worse, adjusted for all that were checked."""
    if not len(fallen):
        return np.empty(0)
    if contest.task == "multilabel":
        return _of_maximum(contest, fallen, checked)
    p = [paired(_accuracy(contest.of(contest.target == k)), 0.05).p_worse for k in fallen]
    return holm_adjusted(np.array(p), len(checked))


def _accuracy(contest: Contest) -> Contest:
    """On the images of one class the accuracy is its recall."""
    return replace(contest, metric="accuracy")


def holm_adjusted(p_T: Floats, tests: int) -> Floats:
    """The p-values of some of `tests` tests, those with the smallest p, adjusted by Holm's method (1979)."""
    order = np.argsort(p_T, kind="stable")
    adjusted = np.empty(len(p_T))
    adjusted[order] = np.maximum.accumulate(p_T[order] * (tests - np.arange(len(p_T))))
    return np.minimum(adjusted, 1.0)


def _of_maximum(contest: Contest, fallen: Ints, checked: Ints) -> Floats:
    """Paired bootstrap of the average precisions: how often the largest fall of all checked classes, in units of its
    standard error, is by chance as large as the one found (Westfall and Young 1993)."""
    ranked = [
        (next(rankings_of(contest.challenger[:, [k]], contest.target[:, [k]])),
         next(rankings_of(contest.champion[:, [k]], contest.target[:, [k]])))
        for k in checked
    ]  # fmt: skip

    def falls(times_BN: Counts) -> Floats:
        return np.stack(
            [
                mean_average_precisions([theirs], times_BN) - mean_average_precisions([own], times_BN)
                for own, theirs in ranked
            ],
            axis=1,
        )

    fall_C = falls(np.ones((1, len(contest.target)), np.int32))[0]
    fall_BC = statistics(falls, contest.unit_N, RESAMPLES, SEED)
    error_C = np.std(fall_BC, axis=0)
    error_C[error_C == 0] = np.inf
    largest_B = np.max((fall_BC - fall_C) / error_C, axis=1)
    place = np.searchsorted(checked, fallen)
    beyond_F = (largest_B[:, None] >= (fall_C / error_C)[place]).sum(axis=0)
    return np.array([_share_p(int(beyond), contest) for beyond in beyond_F])


def calibration(contest: Contest, params: GateParams) -> Loss:
    """The expected calibration error (Naeini et al. 2015) has not risen."""
    own_NK, theirs_NK = contest.decided()
    gaps = _gaps(contest, contest.challenger, own_NK), _gaps(contest, contest.champion, theirs_NK)

    def rise(times_BN: Counts) -> Floats:
        return _errors(gaps[0], times_BN) - _errors(gaps[1], times_BN)

    own, theirs = (float(_errors(gap, np.ones((1, len(contest.target)), np.int32))[0]) for gap in gaps)
    most = theirs + params.max_calibration_rise
    p = 1.0
    if own > most:
        p = _share_p(int((statistics(rise, contest.unit_N, RESAMPLES, SEED) <= 0).sum()), contest)
    found = f"expected calibration error {own:.4f} against {theirs:.4f}" + (f" (p = {p:.2g})" if own > most else "")
    return Loss("calibration", p, found, f"{most:.4f} or less, or more by chance")


def _gaps(contest: Contest, output_NK: Floats, decided_NK: Floats) -> Floats:
    """Confidence minus accuracy, summed for each image and bin of confidence and divided by the number of answers per
    image, (N, M). An image with several classes gives an answer for each."""
    if contest.task == "multilabel":
        confidence = np.maximum(output_NK, 1 - output_NK)
        right: Bools = (output_NK >= 0.5) == (contest.target > 0)
    else:
        label_N1 = decided_NK.argmax(axis=1)[:, None]
        confidence = np.take_along_axis(output_NK, label_N1, axis=1)
        right = label_N1 == contest.target[:, None]
    answers = confidence.shape[1]
    bin_NA = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    place = (np.arange(len(output_NK))[:, None] * BINS + bin_NA).ravel()
    summed = np.bincount(place, weights=(confidence - right).ravel(), minlength=len(output_NK) * BINS)
    return summed.reshape(len(output_NK), BINS) / answers


def _errors(gap_NM: Floats, times_BN: npt.NDArray[np.int32]) -> Floats:
    """The expected calibration error of resamples, (B,)."""
    return np.abs(times_BN @ gap_NM).sum(axis=1) / times_BN.sum(axis=1)


def _share_p(beyond: int, contest: Contest) -> float:
    """The p-value of a count of resamples; with few units it is larger than the share."""
    share = (beyond + 1) / (RESAMPLES + 1)
    return 1.0 if share >= 1 else restored_tail(share, len(np.unique(contest.unit_N)))
