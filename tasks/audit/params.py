"""The section `audit` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..common.core.sections import Section

Action = Literal["warn", "fail", "ignore"]


class AuditParams(Section):
    """Checks of the data by the features: label errors, near-duplicates, outliers, confusable classes, and a learning
    curve. Each `max_...` is a share if below 1, otherwise a number. `on_...` says what happens when more is found:
    `warn` prints it, `fail` stops the run before evaluate, `ignore` only lists it."""

    folds: int = Field(5, ge=2, le=50)
    """Folds of the training and validation images: each is judged by a model trained on all others."""

    max_label_issues: float = Field(0.04, ge=0)
    """Labels that are probably wrong, of the training and validation images that can be judged; with several classes
    per image, marks (an image and a class). Correct labels are suspected too: 4 % of them if models predict 78 % of ten
    classes correctly. The page says how many that would be."""

    on_label_issues: Action = "warn"
    """What happens if there are more."""

    near_pixels: float = Field(0.95, gt=0, le=1)
    """Two images are the same picture if their thumbnails are at least this similar (cosine, see the guide)."""

    near_features: float = Field(0.9, gt=0, le=1)
    """Or if their features are at least this similar (cosine, see the guide)."""

    max_leaks: float = Field(0.0, ge=0)
    """Validation and test images that are also in an earlier split (train; for the test also validation), of all
    validation and test images."""

    on_leaks: Action = "warn"
    """What happens if there are more."""

    max_conflicts: float = Field(0.0, ge=0)
    """Training and validation images that are also there under another label, of all these images."""

    on_conflicts: Action = "warn"
    """What happens if there are more."""

    outlier_score: float = Field(3.5, gt=0)
    """Distance from which an image is an outlier: robust standard deviations of the log distance to its neighbours."""

    max_outliers: float = Field(0.02, ge=0)
    """Outliers, of all images."""

    on_outliers: Action = "warn"
    """What happens if there are more."""

    confusable_share: float = Field(0.05, ge=0, lt=1)
    """Two classes are confusable if significantly more than this share of their images is predicted as the other."""

    max_confusable: float = Field(0.0, ge=0)
    """Confusable pairs of classes, of all pairs."""

    on_confusable: Action = "warn"
    """What happens if there are more."""

    curve_seeds: int = Field(3, ge=1, le=20)
    """Random subsets of the training images per size of the learning curve."""

    examples: int = Field(24, ge=1, le=100)
    """Maximum number of images per plot, the most suspicious first."""

    seed: int = 0
    """Of everything random: folds, subsets, resamples."""
