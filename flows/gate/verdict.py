"""Whether a challenger may replace the champion. Pure: metrics in, a table of checks out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.common.data.task import MAIN, Task
from tasks.common.scoring.classification import expected_calibration_error, reliability
from tasks.common.scoring.main_metric import main_metric
from tasks.common.scoring.ranking import average_precisions
from tasks.common.scoring.significance import mid_p, paired_p

from ..runtime.params import GateParams

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 15
"""Of the calibration error."""

SEED = 0
"""Of the paired bootstrap."""

Outcome = Literal["passed", "failed", "noted", "not checked", "cannot be compared"]

REFUSING = ("failed", "cannot be compared")


@dataclass(frozen=True)
class Check:
    """One question of the gate.

    Attributes:
        name: of the check, as the guide has it.
        outcome: `passed`, `failed`, `noted` (a finding that does not refuse), `not checked` or `cannot be compared`.
        found: the finding, with its numbers.
        allowed: what would have passed.
    """

    name: str
    outcome: Outcome
    found: str
    allowed: str = ""


@dataclass(frozen=True)
class Contest:
    """Both models on the N current test images that neither was trained on; K classes.

    Attributes:
        classes: the current classes, which the columns follow; empty for regression.
        champion_classes: the classes that the champion knows; empty for regression.
        target: as `FeatureSet.targets` gives it.
        challenger, champion: calibrated outputs (N, K), or (N, 1).
        earlier_N: which of the images were among the champion's own test and validation images.
        left_out: number of test images that are not among these because the champion was trained on them.
        latency: milliseconds for a single image, of the challenger and of the champion.
    """

    task: Task
    classes: list[str]
    champion_classes: list[str]
    target: npt.NDArray[Any]
    challenger: Floats
    champion: Floats
    earlier_N: Bools
    left_out: int
    latency: tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate.

    Attributes:
        passed: whether the challenger may be promoted.
        sentence: the decision and its reason.
        checks: all of them, in order.
        metrics: of both models on the same images.
    """

    passed: bool
    sentence: str
    checks: tuple[Check, ...]
    metrics: dict[str, float] = field(default_factory=dict)

    def rows(self) -> list[dict[str, str]]:
        return [
            {"check": each.name, "outcome": each.outcome, "found": each.found, "allowed": each.allowed}
            for each in self.checks
        ]


def judge(contest: Contest, data: tuple[Check, ...], params: GateParams) -> Verdict:
    """The verdict from both models' metrics and the checks of the data."""
    challenger, champion = _scores(contest)
    title = MAIN[contest.task]
    sentence = (
        f"test {title.title} {challenger:.4f} against the champion's {champion:.4f} on {len(contest.target):,} images"
    )
    metrics = {title.key: challenger, f"champion_{title.key}": champion}
    return _verdict(sentence, (*data, *_models(contest, challenger, champion, params)), metrics)


def unopposed(data: tuple[Check, ...], why: str) -> Verdict:
    """The verdict without a champion to compare with: only the checks of the data can refuse."""
    return _verdict(why, data, {})


def incomparable(data: tuple[Check, ...], why: str) -> Verdict:
    """The verdict where the champion cannot be scored on the current images: only a person can decide."""
    allowed = "a champion of the same task and classes; or promote by hand: graft promote"
    check = Check("comparable", "cannot be compared", why, allowed)
    return Verdict(False, f"cannot be compared: {why}", (*data, check))


def _verdict(sentence: str, checks: tuple[Check, ...], metrics: dict[str, float]) -> Verdict:
    reasons = [f"{each.name}: {each.found}" for each in checks if each.outcome in REFUSING]
    return Verdict(not reasons, "; ".join([sentence, *reasons]), checks, metrics)


def _scores(contest: Contest) -> tuple[float, float]:
    return tuple(  # type: ignore[return-value]
        main_metric(output, contest.target, contest.task) for output in (contest.challenger, contest.champion)
    )


def _models(contest: Contest, challenger: float, champion: float, params: GateParams) -> Iterator[Check]:
    yield _gain(contest, challenger - champion, params)
    yield _earlier(contest, params)
    if contest.task != "regression":
        yield _class_list(contest, params)
        yield _min_recall(contest, params)
        yield _drop(contest, params)
        yield _calibration(contest, params)
    yield _latency(contest, params)


def _gain(contest: Contest, gain: float, params: GateParams) -> Check:
    """The main metric on all images, and the paired test."""
    worse, better = _p(contest), _p(contest, reverse=True)
    found = f"{gain:+.4f} (paired test: better p = {better:.2g}, worse p = {worse:.2g})"
    allowed = f"{params.min_gain:+g} or more, and not worse at p = {params.significance:g}"
    passes = gain >= params.min_gain and worse > params.significance
    if params.rule == "better":
        allowed = f"{params.min_gain:+g} or more, and better at p = {params.significance:g}"
        passes = gain >= params.min_gain and better <= params.significance
    return Check("gain", "passed" if passes else "failed", found, allowed)


def _earlier(contest: Contest, params: GateParams) -> Check:
    """On the images that the champion was evaluated on: labels that came with new images cannot confirm themselves."""
    allowed = f"not worse at p = {params.significance:g}"
    rows = contest.earlier_N
    if not rows.any():
        return Check("earlier images", "not checked", "none of the champion's own test images is in the test", allowed)
    part = replace(
        contest,
        target=contest.target[rows],
        challenger=contest.challenger[rows],
        champion=contest.champion[rows],
        earlier_N=rows[rows],
    )
    challenger, champion = _scores(part)
    p = _p(part)
    found = f"{challenger:.4f} against {champion:.4f} on {len(part.target):,} (worse p = {p:.2g})"
    return Check("earlier images", "passed" if p > params.significance else "failed", found, allowed)


def _p(contest: Contest, *, reverse: bool = False) -> float:
    """The p-value of the one-sided paired test that the challenger is worse than the champion, or, reversed, better."""
    pair = (contest.challenger, contest.champion)
    first, second = reversed(pair) if reverse else pair
    return paired_p(first, second, contest.target, contest.task, SEED)


def _class_list(contest: Contest, params: GateParams) -> Check:
    """Test images of a lost class are no longer there, so no other check can notice the loss."""
    lost = [name for name in contest.champion_classes if name not in contest.classes]
    new = [name for name in contest.classes if name not in contest.champion_classes]
    named = {"lost": lost, "new": new}
    found = "; ".join(f"{word}: {', '.join(names)}" for word, names in named.items() if names)
    allowed = "all classes of the champion"
    if params.lost_classes == "note":
        allowed = "any classes: `gate.lost_classes` is note"
    outcome: Outcome = "failed" if lost and params.lost_classes == "refuse" else "noted" if found else "passed"
    return Check("class list", outcome, found or "the same classes", allowed)


def _by_class(contest: Contest, output: Floats) -> Floats:
    """Recall, or average precision, (K,); NaN where a class has no test image."""
    if contest.task == "multilabel":
        return average_precisions(output, contest.target)
    right_N = output.argmax(axis=1) == contest.target
    count_K = np.bincount(contest.target, minlength=len(contest.classes)).astype(np.float64)
    hits_K = np.bincount(contest.target, weights=right_N, minlength=len(contest.classes))
    return np.divide(hits_K, count_K, out=np.full(len(count_K), np.nan), where=count_K > 0)


def _count(contest: Contest) -> npt.NDArray[np.int64]:
    if contest.task == "multilabel":
        return (contest.target > 0).sum(axis=0).astype(np.int64)
    return np.bincount(contest.target, minlength=len(contest.classes)).astype(np.int64)


def _metric(contest: Contest) -> str:
    return "recall" if contest.task == "classification" else "average precision"


def _min_recall(contest: Contest, params: GateParams) -> Check:
    """Every class with enough images reaches its minimum."""
    own, count_K = _by_class(contest, contest.challenger), _count(contest)
    low = [
        f"{name} {own[k]:.3f}"
        for k, name in enumerate(contest.classes)
        if count_K[k] >= params.min_class_images and own[k] < params.min_recall_of(name)
    ]
    allowed = (
        f"{_metric(contest)} of `gate.min_class_recall` in classes with {params.min_class_images} test images or more"
    )
    if not params.min_class_recall:
        return Check("minimum recall", "not checked", "`gate.min_class_recall` is 0", allowed)
    return Check("minimum recall", "failed" if low else "passed", ", ".join(low) or "none below", allowed)


def _drop(contest: Contest, params: GateParams) -> Check:
    """No class is much worse than with the champion."""
    own, theirs, count_K = _by_class(contest, contest.challenger), _by_class(contest, contest.champion), _count(contest)
    worse = [
        f"{name} {theirs[k]:.3f} to {own[k]:.3f}"
        for k, name in enumerate(contest.classes)
        if count_K[k] >= params.min_class_images
        and theirs[k] - own[k] > params.max_class_drop
        and _class_p(contest, k) <= params.significance
    ]
    allowed = f"no class loses more than {params.max_class_drop:g} of {_metric(contest)} beyond chance"
    return Check("classes", "failed" if worse else "passed", ", ".join(worse) or "none is worse", allowed)


def _class_p(contest: Contest, k: int) -> float:
    """The p-value of the test that a class is worse; multi-label: by the decisions on that class."""
    if contest.task == "classification":
        rows = contest.target == k
        own, theirs = (output[rows].argmax(axis=1) == k for output in (contest.challenger, contest.champion))
    else:
        own, theirs = (
            (output[:, k] >= 0.5) == (contest.target[:, k] > 0) for output in (contest.challenger, contest.champion)
        )
    return mid_p(int(np.sum(theirs & ~own)), int(np.sum(own & ~theirs)))


def _calibration(contest: Contest, params: GateParams) -> Check:
    own, theirs = (_error(contest, output) for output in (contest.challenger, contest.champion))
    passes = own <= theirs + params.max_calibration_rise
    return Check(
        "calibration",
        "passed" if passes else "failed",
        f"expected calibration error {own:.4f} against {theirs:.4f}",
        f"{theirs + params.max_calibration_rise:.4f} or less",
    )


def _error(contest: Contest, output: Floats) -> float:
    if contest.task == "classification":
        return expected_calibration_error(reliability(output, contest.target, BINS))
    from tasks.common.heads.calibration import two_way

    return expected_calibration_error(reliability(two_way(output), (contest.target > 0).astype(int).ravel(), BINS))


def _latency(contest: Contest, params: GateParams) -> Check:
    own, theirs = contest.latency
    most = params.max_latency_ratio * theirs
    if params.max_latency_ms is not None:
        most = min(most, params.max_latency_ms)
    return Check(
        "latency",
        "passed" if own <= most else "failed",
        f"{own:.1f} ms per image against {theirs:.1f}",
        f"{most:.1f} ms or less",
    )
