"""Whether a challenger may replace the champion. Pure: metrics in, a table of checks out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from graft.tasks.common.core.words import listed
from graft.tasks.common.scoring.intervals import interval
from graft.tasks.common.scoring.paired import holm

from ..registry.looks import Tested
from ..runtime.params import GateParams
from . import false_alarms
from .contest import BY_CLASS, Check, Contest, Outcome
from .losses import by_class, class_metric, gain_text, image_counts, losses, paired

CONFIDENCE = 0.95
"""Of the interval of the metric on new test images."""

Result = Literal["promote", "refuse", "undecided"]

REFUSING = ("failed", "cannot be compared")

NEW_IMAGES, EARLIER_LOOKS = "new test images", "earlier looks"
"""The checks that are only reported."""


@dataclass(frozen=True)
class Verdict:
    """The decision of the gate.

    Attributes:
        result: `undecided` if nothing speaks against the challenger but the images are too few to tell.
        sentence: the decision and its reason.
        checks: all of them, in order.
        metrics: of both models on the same images.
        tested: the current test images.
    """

    result: Result
    sentence: str
    checks: tuple[Check, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    tested: Tested | None = None

    @property
    def passed(self) -> bool:
        return self.result == "promote"

    def rows(self) -> list[dict[str, str]]:
        return [
            {"check": each.name, "outcome": each.outcome, "found": each.found, "allowed": each.allowed}
            for each in self.checks
        ]

    def facts(self) -> list[dict[str, Any]]:
        """`rows` for JSON, which has all the names that a text only has the first of."""
        named = [{"names": each.names} if each.names else {} for each in self.checks]
        return [{**row, **names} for row, names in zip(self.rows(), named, strict=True)]


def judge(contest: Contest, data: tuple[Check, ...], params: GateParams) -> Verdict:
    """The verdict from both models' metrics and the checks of the data."""
    sentence, metrics = _compared(contest)
    metrics["earlier_looks"] = float(contest.looks)
    if contest.task == "anomaly":
        metrics |= false_alarms.rates(contest)
    fresh, more = _new_images(contest)
    return _verdict(sentence, (*data, *_models(contest, fresh, params)), metrics | more, params.undecided)


def _compared(contest: Contest) -> tuple[str, dict[str, float]]:
    """The metric of both models, in words and by name."""
    if not contest.ranks:
        return false_alarms.sentence(contest), {}
    challenger, champion = contest.scores()
    metric = contest.named
    sentence = f"test {metric.title} {challenger:.4f} against the champion's {champion:.4f} on {contest.size()}"
    return sentence, {metric.key: challenger, f"champion_{metric.key}": champion}


def unopposed(data: tuple[Check, ...], why: str) -> Verdict:
    """The verdict without a champion to compare with: only the checks of the data can refuse."""
    return _verdict(why, data, {})


def incomparable(data: tuple[Check, ...], why: str) -> Verdict:
    """The verdict where the champion cannot be scored on the current images: only a person can decide."""
    remedy = "`graft promote --anyway --why ...` makes it the champion nevertheless"
    check = Check("comparable", "cannot be compared", why, f"a champion of the same task and classes; {remedy}")
    return Verdict("refuse", f"it cannot be compared with the champion: {why}; {remedy}", (*data, check))


def _verdict(
    sentence: str, checks: tuple[Check, ...], metrics: dict[str, float], undecided: Literal["wait", "promote"] = "wait"
) -> Verdict:
    refusing = [f"{each.name}: {each.found}" for each in checks if each.outcome in REFUSING]
    unsure = [f"{each.name}: {each.found}" for each in checks if each.outcome == "too few images"]
    result: Result = "refuse" if refusing else "promote"
    if unsure and not refusing and undecided == "wait":
        result = "undecided"
    return Verdict(result, "; ".join([sentence, *refusing, *unsure]), checks, metrics)


def _models(contest: Contest, fresh: Check, params: GateParams) -> Iterator[Check]:
    tests = false_alarms.anomaly_losses(contest, params) if contest.task == "anomaly" else losses(contest, params)
    worse = holm({test.name: test.p for test in tests}, params.significance)
    tested = {test.name: test.check(test.name in worse) for test in tests}
    yield tested["gain"] if "gain" in tested else _better(contest, params)
    yield tested.get("earlier images", _NO_RANKING if contest.task == "anomaly" else _NO_EARLIER)
    yield fresh
    yield _looks(contest)
    if contest.task == "anomaly":
        yield tested.get(false_alarms.FALSE_ALARMS, _NO_GOOD)
    if contest.task in BY_CLASS:
        yield _class_list(contest, params)
        yield _min_recall(contest, params)
        yield tested["classes"]
        yield tested["calibration"]
    yield _latency(contest, params)


_NO_GOOD = Check(false_alarms.FALSE_ALARMS, "not checked", false_alarms.NO_GOOD)
_NO_RANKING = Check(
    "earlier images", "not checked", "the champion's own test images in the test are not both good images and defects"
)
_NO_EARLIER = Check("earlier images", "not checked", "none of the champion's own test images is in the test")


def _better(contest: Contest, params: GateParams) -> Check:
    """Superiority: the lower bound of the gain is above `gate.min_gain`."""
    if not contest.ranks:
        return false_alarms.unknown_gain(contest, params)
    found = paired(contest, params.significance)
    allowed = f"more than {params.min_gain:+g} at {1 - params.significance:.0%} confidence"
    return Check("gain", "passed" if found.low > params.min_gain else "failed", gain_text(found), allowed)


def _new_images(contest: Contest) -> tuple[Check, dict[str, float]]:
    """The metric on images that came since the champion was made, so that no choice among models has used them."""
    allowed = "any: reported only"
    if contest.earlier_N.all():
        return Check(NEW_IMAGES, "not checked", "none has come since the champion was made", allowed), {}
    part, metric = contest.of(~contest.earlier_N), contest.named
    if not part.ranks:
        kind = "have a defect" if part.target.any() else "are good"
        return Check(NEW_IMAGES, "not checked", f"all {part.size()} that came since {kind}", allowed), {}
    own, theirs = part.scores()
    output, _ = part.judged(metric.key)
    low, high = interval(output, part.target, part.unit_N, part.task, metric=metric.key, confidence=CONFIDENCE)
    found = (
        f"{metric.title} {own:.4f} ({low:.4f} to {high:.4f}) against {theirs:.4f} on the {part.size()} that came since "
        "the champion was made"
    )
    values = {metric.key: own, f"{metric.key}_low": low, f"{metric.key}_high": high, "images": float(len(part.target))}
    named = {f"new_{key}": value for key, value in values.items()} | {f"champion_new_{metric.key}": theirs}
    return Check(NEW_IMAGES, "noted", found, allowed), named


def _looks(contest: Contest) -> Check:
    """Each choice among models on the same images makes the metric of the chosen one more optimistic."""
    found = f"{contest.looks:,} models have been judged on most of these test images before"
    if contest.looks == 1:
        found = "1 model has been judged on most of these test images before"
    if contest.looks == 0:
        return Check(EARLIER_LOOKS, "passed", "no model has been judged on these test images before")
    return Check(EARLIER_LOOKS, "noted", found, "any: reported only")


def _class_list(contest: Contest, params: GateParams) -> Check:
    """Test images of a lost class are no longer there, so no other check can notice the loss."""
    lost = _without(contest.champion_classes, contest.classes)
    both = {"lost": lost, "new": _without(contest.classes, contest.champion_classes)}
    named = {word: names for word, names in both.items() if names}
    found = "; ".join(f"{word}: {listed(names)}" for word, names in named.items())
    allowed = "all classes of the champion, unless `gate.lost_classes` is note"
    if params.lost_classes == "note":
        allowed = "any classes: `gate.lost_classes` is note"
    outcome: Outcome = "failed" if lost and params.lost_classes == "refuse" else "noted" if found else "passed"
    return Check("class list", outcome, found or "the same classes", allowed, named)


def _without(names: list[str], others: list[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _min_recall(contest: Contest, params: GateParams) -> Check:
    """Every class with enough images reaches its minimum."""
    own, count_K = by_class(contest, contest.decided()[0]), image_counts(contest)
    low = {
        name: f"{name} {own[k]:.3f}"
        for k, name in enumerate(contest.classes)
        if count_K[k] >= params.min_class_images and own[k] < params.min_recall_of(name)
    }
    allowed = (
        f"{class_metric(contest)} of `gate.min_class_recall` in classes with {params.min_class_images} test images or "
        "more"
    )
    if not params.min_class_recall:
        return Check("minimum recall", "not checked", "`gate.min_class_recall` is 0", allowed)
    found = listed(low.values()) or "none below"
    return Check("minimum recall", "failed" if low else "passed", found, allowed, {"below": [*low]} if low else {})


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
