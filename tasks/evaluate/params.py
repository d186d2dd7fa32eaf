"""The section `evaluate` of params.yaml."""

from __future__ import annotations

from pydantic import Field

from ..common.core.sections import Section


class EvaluateParams(Section):
    """What the report on the test images shows."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of the intervals. They count independent units: groups, else pictures."""

    bins: int = Field(15, ge=2)
    """Bins of the reliability diagram and of the calibration error."""

    misclassified: int = Field(24, ge=1, le=100)
    """How many misclassified examples (for regression, largest errors) the plot shows."""

    saliency: int = Field(12, ge=0, le=100)
    """How many test images are shown with a Grad-CAM map: half of them the most confident errors, the rest correct
    predictions. 0: none, and torch is not needed."""

    heat_maps: int = Field(9, ge=0, le=100)
    """For anomaly: how many missed defects, detected defects and false alarms each are shown with a heat map. 0:
    none."""
