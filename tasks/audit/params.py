"""The section `audit` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..common.core.sections import Section

Action = Literal["warn", "fail", "ignore"]


class AuditParams(Section):
    """What the features say about the data: wrong labels, leaks, outliers, classes that cannot be told apart, and what
    more images would bring. Each `max_...` is a share when below 1 and a number otherwise; what is done when more is
    found, `on_...` says: `warn` says so, `fail` stops the run before evaluate, `ignore` only lists it."""

    folds: int = Field(5, ge=2, le=50)
    """Parts into which training and validation images are divided: each is judged by a model of all others."""

    max_suspects: float = Field(0.04, ge=0)
    """Labels that are probably wrong, of the training and validation images that can be judged; of several classes an
    image, marks (an image and a class). Of right labels some are suspected too: 4 % where 78 % of ten classes are told
    right. The page says how many that would be."""

    on_suspects: Action = "warn"
    """What happens when there are more."""

    near_pixels: float = Field(0.95, gt=0, le=1)
    """Two images are the same picture when small versions of them are at least so similar (cosine, see the guide)."""

    near_features: float = Field(0.9, gt=0, le=1)
    """Or when their features are at least so similar (cosine, see the guide)."""

    max_leaks: float = Field(0.0, ge=0)
    """Test and validation images that are also among the images before them (train; for the test also val), of all
    test and validation images."""

    on_leaks: Action = "warn"
    """What happens when there are more."""

    max_conflicts: float = Field(0.0, ge=0)
    """Training and validation images of which the same picture has another label, of all these images."""

    on_conflicts: Action = "warn"
    """What happens when there are more."""

    outlier_score: float = Field(3.5, gt=0)
    """An image is an outlier when it is so far from its neighbours: robust standard deviations of the log distance."""

    max_outliers: float = Field(0.02, ge=0)
    """Outliers, of all images."""

    on_outliers: Action = "warn"
    """What happens when there are more."""

    confusable_share: float = Field(0.05, ge=0, lt=1)
    """Two classes are confusable when surely more than this share of their images is taken for the other class."""

    max_confusable: float = Field(0.0, ge=0)
    """Confusable pairs of classes, of all pairs."""

    on_confusable: Action = "warn"
    """What happens when there are more."""

    curve_seeds: int = Field(3, ge=1, le=20)
    """How often the learning curve draws its parts of the training images."""

    shown: int = Field(24, ge=1, le=100)
    """How many of the worst each picture shows."""

    seed: int = 0
    """Of all that is drawn at random: folds, parts, resamples."""
