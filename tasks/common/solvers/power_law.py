"""error(n) = a + b * n^-c (Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically").

S sizes, B resamples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXPONENTS = np.linspace(0.05, 1.5, 59)
"""The exponents that are tried; Hestness et al. found 0.07 to 0.35 for whole networks, and 0.5 is usual in theory."""


def power_law(n_S: Floats, error_SB: Floats, weight_S: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b and c, each (B,), by weighted least squares with a, b >= 0: a straight line in n^-c for each exponent, of
    which the best is kept."""
    w = weight_S / weight_S.sum()
    best = [np.full(error_SB.shape[1], value) for value in (0.0, 0.0, EXPONENTS[0])]
    least_B = np.full(error_SB.shape[1], np.inf)
    for c in EXPONENTS:
        x = n_S**-c
        x_mean, y_mean_B = w @ x, w @ error_SB
        b_B = np.maximum((w * (x - x_mean)) @ (error_SB - y_mean_B) / (w @ (x - x_mean) ** 2), 0.0)
        a_B = y_mean_B - b_B * x_mean
        through_zero = a_B < 0
        b_B = np.where(through_zero, (w * x) @ error_SB / (w @ x**2), b_B)
        a_B = np.maximum(a_B, 0.0)
        rest_B = w @ (error_SB - a_B - x[:, None] * b_B) ** 2
        better = rest_B < least_B
        least_B = np.where(better, rest_B, least_B)
        best = [np.where(better, new, old) for new, old in zip((a_B, b_B, np.full_like(a_B, c)), best, strict=True)]
    return best[0], best[1], best[2]
