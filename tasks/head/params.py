"""The section `head` of params.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ..common.params import Section
from ..common.task import Task


class HeadParams(Section):
    """The classifier that is trained on the frozen features."""

    task: Task = "classification"
    """What an image's label is: one class; any number of classes (`multilabel`); a number (`regression`). Every stage
    goes by it."""

    l2_max: float = Field(1.0, gt=0)
    """The strongest L2 regularisation, on the mean loss over standardised features; the path starts here."""

    l2_min: float = Field(1e-6, gt=0)
    """The weakest one; the path ends here, or where validation has clearly turned."""

    strengths: int = Field(19, ge=1, le=200)
    """How many strengths, evenly spaced in their logarithm."""

    patience: int = Field(3, ge=1)
    """The path ends after this many strengths in a row without a better validation result."""

    select: Literal["log_loss", "accuracy"] = "log_loss"
    """What decides on validation."""

    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weighs each class as if all had equally many images."""

    refit: bool = True
    """Whether the chosen strength is trained again on training and validation images together."""

    tolerance: float = Field(1e-5, gt=0)
    """The largest entry of the mean loss's gradient at which training of one strength ends."""

    max_iterations: int = Field(1000, ge=1)
    """Steps for one strength at most."""

    calibrate: bool = True
    """Whether probabilities are scaled by one temperature, found on validation, so that they say how often the model is
    right."""

    max_error: float | None = Field(None, gt=0, lt=1)
    """Between 0 and 1: the share of wrong answers that is promised among the images that the model answers; it abstains
    from the others. null: it answers all."""

    max_error_confidence: float = Field(0.9, gt=0, lt=1)
    """With which that is promised."""

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.l2_min > self.l2_max:
            raise ValueError(f"l2_min must not be above l2_max, got {self.l2_min:g} > {self.l2_max:g}")
        return self
