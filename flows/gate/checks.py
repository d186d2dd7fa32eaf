"""Whether a challenger may take the champion's place. Pure: figures in, a table of checks out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.common.data.task import MAIN, Task
from tasks.common.scoring.classification import expected_calibration_error, reliability
from tasks.common.scoring.main_metric import main_metric
from tasks.common.scoring.multilabel import average_precisions
from tasks.common.scoring.significance import mid_p, paired_p

from ..runtime.params import GateParams

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BINS = 15
"""Of the calibration error."""

SEED = 0
"""Of the paired bootstrap."""

Outcome = Literal["passed", "failed", "noted", "not asked"]


@dataclass(frozen=True)
class Check:
    """One question of the gate.

    Attributes:
        name: of the check, as the guide has it.
        outcome: `passed`, `failed`, `noted` (found, but no reason to refuse) or `not asked`.
        found: what was found, in words and figures.
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
        classes: by which the columns go; none where numbers are predicted.
        target: as `FeatureSet.targets` gives it.
        challenger, champion: outputs (N, K), or (N, 1), calibrated.
        earlier_N: which of the images were among the champion's own test and validation images.
        left_out: test images that the champion was trained on, which are not among these.
        latency: milliseconds for a single image, of the challenger and of the champion.
    """

    task: Task
    classes: list[str]
    target: npt.NDArray[Any]
    challenger: Floats
    champion: Floats
    earlier_N: Bools
    left_out: int
    latency: tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: whether the challenger may be promoted.
        sentence: that, and why.
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
    """The verdict on both models and on what was found about the data."""
    challenger, champion = _scores(contest)
    checks = (*data, *_models(contest, challenger, champion, params))
    title, failed = MAIN[contest.task], [each for each in checks if each.outcome == "failed"]
    figures = (
        f"test {title.title} {challenger:.4f} against the champion's {champion:.4f} on {len(contest.target):,} images"
    )
    why = "; ".join(f"{each.name}: {each.found}" for each in failed)
    metrics = {title.key: challenger, f"champion_{title.key}": champion}
    return Verdict(not failed, f"{figures}; {why}" if failed else figures, checks, metrics)


def unopposed(data: tuple[Check, ...], why: str) -> Verdict:
    """The verdict where there is nobody to compare with: only the data may refuse."""
    failed = [each for each in data if each.outcome == "failed"]
    return Verdict(not failed, "; ".join([why, *(f"{each.name}: {each.found}" for each in failed)]), data)


def incomparable(data: tuple[Check, ...], why: str) -> Verdict:
    """The verdict where the champion is of another kind: only a person can decide."""
    check = Check("comparable", "failed", why, "a champion of the same task; or promote by hand: graft promote")
    return Verdict(False, why, (*data, check))


def _scores(contest: Contest) -> tuple[float, float]:
    return tuple(  # type: ignore[return-value]
        main_metric(output, contest.target, contest.task) for output in (contest.challenger, contest.champion)
    )


def _models(contest: Contest, challenger: float, champion: float, params: GateParams) -> Iterator[Check]:
    yield _gain(contest, challenger - champion, params)
    yield _earlier(contest, params)
    if contest.task != "regression":
        yield _floor(contest, params)
        yield _drop(contest, params)
        yield _calibration(contest, params)
    yield _latency(contest, params)


def _gain(contest: Contest, gain: float, params: GateParams) -> Check:
    """The main figure on all images, and the paired test."""
    worse, better = _p(contest), _p(contest, reverse=True)
    found = f"{gain:+.4f} (paired test: better p = {better:.2g}, worse p = {worse:.2g})"
    allowed = f"{params.min_gain:+g} or more, and not worse at p = {params.significance:g}"
    passes = gain >= params.min_gain and worse > params.significance
    if params.rule == "better":
        allowed = f"{params.min_gain:+g} or more, and better at p = {params.significance:g}"
        passes = gain >= params.min_gain and better <= params.significance
    return Check("gain", "passed" if passes else "failed", found, allowed)


def _earlier(contest: Contest, params: GateParams) -> Check:
    """On the images by which the champion was judged: labels that came with new images cannot speak for themselves."""
    allowed = f"not worse at p = {params.significance:g}"
    if not contest.earlier_N.any():
        return Check("earlier images", "not asked", "none of the champion's own test images is in the test", allowed)
    part = Contest(
        contest.task,
        contest.classes,
        contest.target[contest.earlier_N],
        contest.challenger[contest.earlier_N],
        contest.champion[contest.earlier_N],
        contest.earlier_N[contest.earlier_N],
        0,
        contest.latency,
    )
    challenger, champion = _scores(part)
    p = _p(part)
    found = f"{challenger:.4f} against {champion:.4f} on {len(part.target):,} (worse p = {p:.2g})"
    return Check("earlier images", "passed" if p > params.significance else "failed", found, allowed)


def _p(contest: Contest, *, reverse: bool = False) -> float:
    """That the challenger looks as much worse than the champion, or with `reverse` better, by chance."""
    pair = (contest.challenger, contest.champion)
    first, second = reversed(pair) if reverse else pair
    return paired_p(first, second, contest.target, contest.task, SEED)


def _by_class(contest: Contest, output: Floats) -> Floats:
    """Recall, or average precision, (K,); not a number where a class has no test image."""
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


def _figure(contest: Contest) -> str:
    return "recall" if contest.task == "classification" else "average precision"


def _floor(contest: Contest, params: GateParams) -> Check:
    """Every class with enough images has the figure that it must have at least."""
    own, count_K = _by_class(contest, contest.challenger), _count(contest)
    low = [
        f"{name} {own[k]:.3f}"
        for k, name in enumerate(contest.classes)
        if count_K[k] >= params.class_images and own[k] < params.floor_of(name)
    ]
    allowed = f"{_figure(contest)} of `gate.class_floor` in classes of {params.class_images} test images or more"
    if not params.class_floor:
        return Check("class floors", "not asked", "`gate.class_floor` is 0", allowed)
    return Check("class floors", "failed" if low else "passed", ", ".join(low) or "none below", allowed)


def _drop(contest: Contest, params: GateParams) -> Check:
    """No class has lost much to the champion."""
    own, theirs, count_K = _by_class(contest, contest.challenger), _by_class(contest, contest.champion), _count(contest)
    fallen = [
        f"{name} {theirs[k]:.3f} to {own[k]:.3f}"
        for k, name in enumerate(contest.classes)
        if count_K[k] >= params.class_images
        and theirs[k] - own[k] > params.class_drop
        and _class_p(contest, k) <= params.significance
    ]
    allowed = f"no class falls by more than {params.class_drop:g} of {_figure(contest)} beyond chance"
    return Check("classes", "failed" if fallen else "passed", ", ".join(fallen) or "none has fallen", allowed)


def _class_p(contest: Contest, k: int) -> float:
    """That a class looks as much worse by chance; of several classes an image by the decisions on this one."""
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
    passes = own <= theirs + params.calibration_rise
    return Check(
        "calibration",
        "passed" if passes else "failed",
        f"expected calibration error {own:.4f} against {theirs:.4f}",
        f"{theirs + params.calibration_rise:.4f} or less",
    )


def _error(contest: Contest, output: Floats) -> float:
    if contest.task == "classification":
        return expected_calibration_error(reliability(output, contest.target, BINS))
    from tasks.common.heads.calibration import two_way

    return expected_calibration_error(reliability(two_way(output), (contest.target > 0).astype(int).ravel(), BINS))


def _latency(contest: Contest, params: GateParams) -> Check:
    own, theirs = contest.latency
    most = params.latency_ratio * theirs
    if params.max_latency_ms is not None:
        most = min(most, params.max_latency_ms)
    return Check(
        "latency",
        "passed" if own <= most else "failed",
        f"{own:.1f} ms an image against {theirs:.1f}",
        f"{most:.1f} ms or less",
    )
