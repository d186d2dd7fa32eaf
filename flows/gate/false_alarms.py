"""What a detector of anomalies may have lost that its ranking does not show: good images taken for defects."""

from __future__ import annotations

from graft.tasks.common.scoring.paired import rate_rise

from ..runtime.params import GateParams
from .contest import Check, Contest
from .losses import Loss, earlier, gain

FALSE_ALARMS = "false alarms"

UNKNOWN = "detection is unknown: no test image has a defect"

NO_GOOD = "the false-alarm rate is unknown: no test image is good"


def anomaly_losses(contest: Contest, params: GateParams) -> list[Loss]:
    """All tests that these images allow: without a defect, that of false alarms alone."""
    before = contest.of(contest.earlier_N)
    found = [gain(contest, params)] if params.rule == "not_worse" and contest.ranks else []
    found += [earlier(contest, params)] if before.ranks else []
    return found + ([false_alarms(contest)] if (contest.target == 0).any() else [])


def false_alarms(contest: Contest) -> Loss:
    """The share of the good images that are taken for a defect has not risen."""
    good = contest.of(contest.target == 0)
    own_M, theirs_M = (decided[:, 0] > 0 for decided in good.decided())
    p = rate_rise(theirs_M, own_M, good.unit_N)
    risen = f" (p = {p:.2g})" if own_M.sum() > theirs_M.sum() else ""
    text = (
        f"{own_M.mean():.1%} of {good.size()} that are good ({own_M.sum():,}) against {theirs_M.mean():.1%} "
        f"({theirs_M.sum():,}){risen}"
    )
    return Loss(FALSE_ALARMS, p, text, "no more than the champion's, or more by chance")


def rates(contest: Contest) -> dict[str, float]:
    """The false-alarm rate and the detection rate of both models, as far as there are images for them."""
    found: dict[str, float] = {}
    for key, rows in (("false_alarm_rate", contest.target == 0), ("detection_rate", contest.target > 0)):
        if rows.any():
            own, theirs = (float((decided[:, 0] > 0).mean()) for decided in contest.of(rows).decided())
            found |= {key: own, f"champion_{key}": theirs}
    return found


def unknown_gain(contest: Contest, params: GateParams) -> Check:
    """The check `gain` where the metric cannot be computed: nothing shows that a challenger is better."""
    why = UNKNOWN if not (contest.target > 0).any() else NO_GOOD
    if params.rule == "better":
        return Check("gain", "too few images", why, "better beyond chance")
    return Check("gain", "not checked", why, f"at least {-params.margin:+g}")


def sentence(contest: Contest) -> str:
    """Of the verdict where the metric cannot be computed."""
    found = rates(contest)
    key, what = (
        ("detection_rate", "detection rate") if contest.target.any() else ("false_alarm_rate", "false-alarm rate")
    )
    return f"{what} {found[key]:.1%} against the champion's {found[f'champion_{key}']:.1%} on {contest.size()}"
