"""The section `evaluate` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from ..common.core.sections import Section


class EvaluateParams(Section):
    """How the test is reported."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the intervals around the main figure and the like."""

    bootstrap: int = Field(10_000, ge=100)
    """Resamples for the intervals. For a mean average precision as many of them as cost 2 * 10**9 numbers (images *
    classes * resamples), but at least 1,000."""

    bins: int = Field(15, ge=2)
    """Of the reliability diagram and the calibration error."""

    mistakes: int = Field(24, ge=1, le=100)
    """How many of the worst mistakes, or largest errors, the picture shows."""

    looks: int = Field(12, ge=0, le=100)
    """How many test images are shown with what the network looks at in them: half of them the worst mistakes, the rest
    successes. 0: none, and torch is not needed."""

    seed: int = 0
    """Of the resampling."""
