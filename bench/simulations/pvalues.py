"""How often a paired test finds a difference between models that are equally good.

Both models see the same N images of U units, and each is wrong on images of its own: their true metrics are equal. A
one-sided test at 5 % may say in 5 % of the runs that the second is better.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SIGNIFICANCE = 0.05

ALLOWED = 0.065
"""The rate of false findings that passes: 5 % and the error of an approximation."""
