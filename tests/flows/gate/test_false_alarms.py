"""The gate for detectors of anomalies: what they rank, what they alarm of, and what nobody knows."""

from __future__ import annotations

import numpy as np
import pytest

from graft.flows.gate.contest import Contest
from graft.flows.gate.verdict import judge
from graft.flows.runtime.params import GateParams

PARAMS = GateParams()


def detector(gap: float, false_alarms: int, target: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores, alarms), (N, 1) each: defects score higher by `gap`, and so many good images raise an alarm."""
    score_N = np.random.default_rng(seed).normal(size=len(target)) + gap * target
    alarm_N = (target > 0) & (score_N > gap - 1)
    alarm_N[np.flatnonzero(target == 0)[:false_alarms]] = True
    return score_N[:, None], alarm_N.astype(np.float64)[:, None]


def contest(
    own: tuple[float, int], theirs: tuple[float, int], good: int = 100, defects: int = 100, new: int = 0
) -> Contest:
    target = np.repeat([0.0, 1.0], [good, defects])
    (challenger, alarms), (champion, their_alarms) = (detector(*each, target) for each in (own, theirs))
    return Contest(
        task="anomaly",
        metric="auto",
        classes=[],
        champion_classes=[],
        target=target,
        challenger=challenger,
        champion=champion,
        unit_N=np.arange(len(target)),
        earlier_N=np.arange(len(target)) >= new,
        left_out=0,
        latency=(10.0, 10.0),
        challenger_weighed=alarms,
        champion_weighed=their_alarms,
    )


def check(verdict, name: str):
    return next(each for each in verdict.checks if each.name == name)


def test_an_equal_detector_passes_and_the_verdict_tells_both_rates() -> None:
    verdict = judge(contest((3, 4), (3, 4)), (), PARAMS)

    assert verdict.result == "promote"
    assert verdict.metrics["auroc"] == verdict.metrics["champion_auroc"]
    assert verdict.metrics["false_alarm_rate"] == verdict.metrics["champion_false_alarm_rate"] == 0.04
    assert verdict.sentence.startswith("test AUROC 0.97")
    assert not {"classes", "calibration", "class list"} & {each.name for each in verdict.checks}


def test_a_detector_that_ranks_worse_is_refused() -> None:
    verdict = judge(contest((1, 4), (4, 4)), (), PARAMS)

    assert verdict.result == "refuse"
    assert check(verdict, "gain").outcome == "failed"


@pytest.mark.parametrize(("own", "expected"), [(4, "passed"), (6, "passed"), (20, "failed")])
def test_more_false_alarms_than_by_chance_refuse(own: int, expected: str) -> None:
    verdict = judge(contest((4, own), (4, 4)), (), PARAMS)

    assert check(verdict, "false alarms").outcome == expected
    assert (verdict.result == "refuse") is (expected == "failed")


def test_without_a_defect_false_alarms_decide_and_detection_is_unknown() -> None:
    equal = judge(contest((4, 4), (4, 4), defects=0), (), PARAMS)
    worse = judge(contest((4, 30), (4, 4), defects=0), (), PARAMS)

    assert (equal.result, worse.result) == ("promote", "refuse")
    assert check(equal, "gain").outcome == "not checked"
    assert check(equal, "gain").found == "detection is unknown: no test image has a defect"
    assert "auroc" not in equal.metrics
    assert equal.sentence.startswith("false-alarm rate 4.0% against the champion's 4.0%")


def test_earlier_test_images_that_are_all_defects_cannot_be_ranked() -> None:
    earlier = check(judge(contest((3, 4), (3, 4), new=100), (), PARAMS), "earlier images")

    assert earlier.outcome == "not checked"
    assert "not both good images and defects" in earlier.found


def test_without_a_good_image_the_false_alarm_rate_is_unknown() -> None:
    verdict = judge(contest((4, 0), (4, 0), good=0), (), PARAMS)

    assert check(verdict, "false alarms").outcome == "not checked"
    assert verdict.sentence.startswith("detection rate")


def test_the_rule_better_is_undecided_without_a_defect() -> None:
    verdict = judge(contest((4, 0), (4, 4), defects=0), (), GateParams(rule="better"))

    assert verdict.result == "undecided"


def test_new_images_that_are_all_good_have_no_ranking() -> None:
    verdict = judge(contest((4, 0), (4, 0), new=20), (), PARAMS)

    assert check(verdict, "new test images").outcome == "not checked"
    assert check(verdict, "new test images").found == "all 20 images that came since are good"
