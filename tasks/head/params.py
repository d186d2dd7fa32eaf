"""The section `head` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from ..common.core.sections import Section
from ..common.data.task import Task

Folds = Literal["auto"] | int
Select = Literal[
    "auto",
    "log_loss",
    "rmse",
    "accuracy",
    "balanced_accuracy",
    "f1_macro",
    "auroc",
    "mean_average_precision",
    "kappa",
    "r2",
]
ClassWeight = Literal["none", "balanced"] | dict[str, float]


Coreset = Literal["auto"] | float


def _coreset(value: Any) -> Coreset:
    if value == "auto" or (type(value) in (int, float) and (0 < value < 1 or (value >= 1 and value == int(value)))):
        return value
    raise PydanticCustomError("coreset", "must be auto, a share between 0 and 1, or a whole number from 1 on")


def _folds(value: Any) -> Folds:
    if value == "auto" or (type(value) is int and value >= 0 and value != 1):
        return value
    raise PydanticCustomError("folds", "must be auto, 0, or a whole number from 2 on")


def _class_weight(value: Any) -> ClassWeight:
    """Classes called 0 or 1.5 are numbers in YAML."""
    if value in ("none", "balanced"):
        return value
    weights = value.values() if isinstance(value, dict) else []
    if weights and all(type(weight) in (int, float) and 0 < weight < float("inf") for weight in weights):
        return {str(name): float(weight) for name, weight in value.items()}
    raise PydanticCustomError("class_weight", "must be none, balanced, or {class: a number above 0, ...}")


class HeadParams(Section):
    """What is trained on the frozen features: a classifier or a regression."""

    task: Task = "classification"
    """What an image's label is: one class, any number of classes (`multilabel`), a number (`regression`), or `good` or
    a kind of defect (`anomaly`, learned from good images alone). It applies to all stages."""

    kind: Literal["auto", "logistic", "knn", "ridge", "mlp", "gaussian", "patches", "subspace"] = "auto"
    """`auto` is logistic regression for classes and ridge regression for numbers. `knn`: the nearest training images
    vote; `mlp`: one hidden layer. Each kind has its own grid of candidates. For anomalies: `gaussian`, the
    distance from a normal distribution of good images at each place of the picture; `patches`, the distance to the
    nearest of a bank of good patches of any place; or `subspace`, what the main axes of good patches do not explain.
    `auto` is `gaussian` where held-out good images are more likely by one distribution at each place than by one for
    all places, otherwise `patches`; with 10 defects in validation, the best of all."""

    combine: Literal["auto", "side_by_side", "mean"] = "auto"
    """For several backbones or sizes in `features`: `side_by_side` trains one head on all their features; `mean` trains
    a head for each, which chooses its own candidate, and takes the mean of their probabilities or numbers. `auto` does
    both and keeps what is better on the held-out images, by `select` after calibration."""

    folds: Annotated[Folds, BeforeValidator(_folds)] = "auto"
    """How the candidate is chosen: 0 on the validation images; 2 or more by cross-validation with this number of folds
    over training and validation images. `auto` takes 5 where validation has fewer than 100 images, otherwise 0."""

    select: Select = "auto"
    """The metric that chooses among the candidates: `auto` is `log_loss` for classes, weighed by `class_weight`, and
    `rmse`, the root of the mean squared error, for numbers. Otherwise a metric of the task; a tie goes to the smaller
    loss."""

    class_weight: Annotated[ClassWeight, BeforeValidator(_class_weight)] = "none"
    """`balanced` gives all classes the same total weight; a mapping gives each class, by its name, a weight. Candidates
    are trained and chosen with these weights. Calibrated probabilities are those of the true shares of the classes; the
    label stays the one that the head gives, and need not be the most probable class."""

    refit: bool = True
    """Whether the chosen candidate is trained again on training and validation images together."""

    l2_max: float = Field(1e5, gt=0)
    """For `logistic` and `ridge`: the strongest L2 regularisation, which adds l2 / 2 * |W|^2 to the mean loss over
    standardised features; the path starts here. The 45 values are those of Kornblith et al. 2019, who add l2 * |W|^2
    to the sum of the losses: with N images, their strength times 2 / N is the strength here."""

    l2_min: float = Field(1e-6, gt=0)
    """For `logistic` and `ridge`: the weakest L2 regularisation."""

    strengths: int = Field(45, ge=1, le=200)
    """For `logistic` and `ridge`: the number of strengths, evenly spaced in their logarithm."""

    patience: int = Field(3, ge=1)
    """For `logistic`: the path ends after this many strengths in a row without a better result; `ridge` tries all."""

    tolerance: float = Field(1e-5, gt=0)
    """For `logistic`: the largest entry of the mean loss's gradient at which training of one strength ends; below a
    strength of 0.001 it falls in proportion."""

    max_iterations: int = Field(1000, ge=1)
    """For `logistic`: the most steps for one strength."""

    knn_k: list[Annotated[int, Field(ge=1)]] = Field([1, 2, 5, 10, 20, 50, 100, 200], min_length=1)
    """For `knn`: how many neighbours vote; each is tried."""

    knn_temperature: float = Field(0.07, gt=0)
    """For `knn`: a vote weighs exp(cosine / temperature)."""

    mlp_hidden: int = Field(256, ge=1)
    """For `mlp`: units of the hidden layer."""

    mlp_dropout: list[Annotated[float, Field(ge=0, lt=1)]] = Field([0.0, 0.5, 0.8], min_length=1)
    """For `mlp`: shares of hidden units that are left out at each step; each is tried with each weight decay."""

    mlp_weight_decay: list[Annotated[float, Field(ge=0)]] = Field([0.01, 1.0], min_length=1)
    """For `mlp`: AdamW's weight decay; each is tried."""

    mlp_epochs: int = Field(100, ge=1)
    """For `mlp`: the most passes over the images; the best number is chosen as well."""

    mlp_patience: int = Field(10, ge=1)
    """For `mlp`: a training ends after this many epochs in a row without a better result."""

    target: Literal["image", "mask", "target"] = "image"
    """For `reconstruction`: what the decoder gives: `image`, the image itself; `mask` or `target`, the image that the
    table names in this column. Pixels of a mask above 0 are marked; a target is, for example, a clean version."""

    decoder_width: int = Field(16, ge=4, le=256)
    """For `reconstruction`: channels of the decoder's finest step; coarser ones have up to four times as many."""

    decoder_epochs: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """For `reconstruction`: the most passes over the images. `auto`: 12,000 images in all, in 5 to 60 passes."""

    decoder_patience: int = Field(15, ge=1)
    """For `reconstruction`: training ends after this many passes in a row without a smaller loss on validation."""

    untrained: bool = True
    """For `reconstruction`: whether the same decoder is also trained on the network with random weights, to show what
    the pre-trained ones are worth. It doubles the time."""

    seed: int = 0
    """Seed of the folds, and of initial weights, order and dropout of `mlp`."""

    calibrate: bool = True
    """Whether probabilities are calibrated on held-out images, so that a confidence is the expected accuracy: with one
    temperature; with `class_weight` also with a bias per class; for several classes per image with a temperature per
    class."""

    max_error: float | None = Field(None, gt=0, lt=1)
    """Between 0 and 1: the error rate that is guaranteed for the images that the model answers; it abstains from the
    others. null: the model answers for every image."""

    max_error_confidence: float = Field(0.9, gt=0, lt=1)
    """The confidence of the guarantee of `max_error`, and of `max_false_alarm`."""

    max_false_alarm: float = Field(0.05, gt=0, lt=1)
    """For anomalies: the share of good images that may be taken for anomalous. The threshold guarantees it with
    `max_error_confidence`, by good images that were held out; 5 % with 90 % takes 45 of them."""

    coreset: Annotated[Coreset, BeforeValidator(_coreset)] = "auto"
    """For `patches`: how many patches the bank has, as a number, or below 1 as a share of all patches of good images;
    `auto` is 5000. More find smaller defects, and take more time for every image."""

    thresholds: Literal["half", "f1"] = "half"
    """For `multilabel`: from which probability on a class is predicted: `half` is 0.5, `f1` the probability with the
    largest F1 of each class on held-out images."""

    interval_confidence: float = Field(0.9, gt=0, lt=1)
    """For `regression`: the share of new images whose number is between `low` and `high` of the prediction."""

    set_confidence: float | None = Field(None, gt=0, lt=1)
    """For `classification`: between 0 and 1: each prediction has a set of classes, which has the right one for this
    share of new images. null: no sets."""

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.l2_min > self.l2_max:
            raise ValueError(f"l2_min must not be above l2_max, got {self.l2_min:g} > {self.l2_max:g}")
        return self
