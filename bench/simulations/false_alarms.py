"""How often a threshold from good images alone breaks its promise about false alarms, whose true rate is known.

Scores are normal, in groups whose images are alike: the intraclass correlation is the share of the variance among them.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from graft.tasks.common.scoring.false_alarms import false_alarm_limit

RATE, CONFIDENCE = 0.05, 0.9


def broken(runs: int, groups: int, images: int, icc: float, seed: int) -> dict[str, float]:
    """Of `runs` samples of groups of so many images: `bound`, the share that have a bound; `broken`, the share of
    these whose true rate is above it; `rate`, the mean true rate of all."""
    rng = np.random.default_rng(seed)
    unit_N = np.repeat(np.arange(groups), images)
    bound_R, rate_R = np.empty(runs, np.bool_), np.empty(runs)
    for run in range(runs):
        common_N = rng.normal(size=groups)[unit_N]
        score_N = np.sqrt(icc) * common_N + np.sqrt(1 - icc) * rng.normal(size=len(unit_N))
        limit = false_alarm_limit(score_N, unit_N, RATE, CONFIDENCE)
        bound_R[run], rate_R[run] = limit.guarantee == "bound", 1 - ndtr(limit.threshold)
    failed = float((rate_R[bound_R] > RATE).mean()) if bound_R.any() else 0.0
    return {"bound": float(bound_R.mean()), "broken": failed, "rate": float(rate_R.mean())}
