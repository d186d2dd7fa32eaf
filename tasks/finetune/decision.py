"""Whether to train the backbone, and what is written about the decision. Pure: metrics in, a decision in words out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..common.core.errors import ParamsError
from ..common.data.task import LOSS, MAIN, Metric, Task
from ..common.scoring.paired import mid_p
from .params import FinetuneParams


@dataclass(frozen=True)
class Score:
    """The metric that decides, and the scaled loss (see `scaling.py`), on the held-out images."""

    main: float
    loss: float
    metric: Metric = MAIN["classification"]
    task: Task = "classification"

    def named(self) -> dict[str, float]:
        return {self.metric.key: self.main, LOSS[self.task]: self.loss}


@dataclass(frozen=True)
class Decision:
    """The content of decision.json. It contains no measured time, so that the same decision gives the same file.

    Attributes:
        ran: whether layers of the backbone were trained.
        chosen: the candidate that later stages use, `head` or `finetune`.
        reason: one sentence.
        validation: candidate -> its score on the held-out images.
        held_out: how many images those are: `images`, `units`, and the `folds` (0: the validation images).
        p: of both paired tests together against the hypothesis that the fine-tuned model is no better; `p_metric` and
            `p_loss` are those of each. None if it did not run.
        more_images: what the head's learning curve predicts for twice the images.
        refitted: whether the network has learned the validation images too, after the decision.
        settled: the values that `auto` stands for.
    """

    mode: str
    ran: bool
    chosen: str
    reason: str
    train_images: int
    budget_minutes: float
    validation: dict[str, Score]
    held_out: dict[str, int]
    p: float | None = None
    p_metric: float | None = None
    p_loss: float | None = None
    more_images: str = ""
    refitted: bool = False
    settled: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "validation": {name: score.named() for name, score in self.validation.items()}}


def why_not(params: FinetuneParams, train_images: int, wrong: int | None, val_images: int, held: int) -> str:
    """Why `off` or `auto` does not train, where that is known without measuring; otherwise empty.

    Args:
        wrong: validation images that the frozen head gets wrong; none for a task without right and wrong.
        held: the images by which the decision would be made: those of validation, or of all folds.
    """
    if params.mode == "off":
        return "`finetune.mode` is off"
    if params.mode == "on":
        return ""
    if train_images < params.min_images:
        return f"{train_images} training images are fewer than `finetune.min_images`, {params.min_images}"
    if wrong is not None and mid_p(wrong * held / max(val_images, 1), 0) > params.significance:
        return (
            f"the frozen head gets {wrong} of {val_images} validation images wrong: too few to show that even a model "
            "without errors is better"
        )
    return ""


@dataclass(frozen=True)
class Cost:
    """Predicted seconds: once, and for each epoch."""

    once: float
    epoch: float

    def minutes(self, epochs: int) -> float:
        return (self.once + epochs * self.epoch) / 60

    def epochs_within(self, minutes: float) -> int:
        return max(0, int((60 * minutes - self.once) / self.epoch))


SHORTEST = 1 / 2
"""Share of the planned epochs with which `auto` still trains where all of them would take too long."""


def whether_it_fits(params: FinetuneParams, epochs: int, train_images: int, cost: Cost) -> tuple[int, str, float]:
    """(epochs to train, 0 for none; reason; predicted minutes of them, or of all if none). The rate falls to zero
    within the epochs that fit."""
    fitting = min(epochs, cost.epochs_within(params.budget_minutes))
    allowed = f"`finetune.budget_minutes`, {params.budget_minutes:g}, here"
    if fitting < max(1, math.ceil(SHORTEST * epochs)):
        told = f"{epochs} epochs of {train_images} images would take longer than {allowed}"
        return 0, told, cost.minutes(epochs)
    cut = "" if fitting == epochs else f", and {epochs} would take longer"
    told = f"{fitting} epochs of {train_images} images would take less than {allowed}{cut}"
    return fitting, told, cost.minutes(fitting)


def enough_minutes(predicted: float) -> int:
    """A budget in which the training fits even if it takes a quarter longer than predicted."""
    return math.ceil(1.25 * predicted)


def why_no_start(params: FinetuneParams, kind: str) -> str:
    """Why nothing can be trained from a head of this kind.

    Raises:
        ParamsError: `finetune.mode: on` demands it.
    """
    if params.mode == "on":
        raise ParamsError(
            "`finetune.mode` is on, but fine-tuning starts from a linear head",
            got=f"a head of kind {kind} (`head.kind`)",
            allowed="head.kind: auto | logistic | ridge",
            todo="set `head.kind: auto`, or `finetune.mode: off`",
        )
    return f"fine-tuning starts from a linear head; this one is of kind {kind} (`head.kind`)"


def why_not_several(params: FinetuneParams, backbones: str) -> str:
    """Why nothing can be trained on several backbones or sizes.

    Raises:
        ParamsError: `finetune.mode: on` demands it.
    """
    if params.mode == "on":
        raise ParamsError(
            "`finetune.mode` is on, but only one backbone at one size can be fine-tuned",
            got=backbones,
            allowed="one name in `features.backbone`, one size in `features.image_size`",
            todo="name one of them, or set `finetune.mode: off`",
        )
    return f"several backbones or sizes cannot be fine-tuned together: {backbones}"


def more_images(doubling: dict[str, Any], task: Task) -> str:
    """What the head's learning curve (see `audit`) predicts for twice the images, as a sentence."""
    if doubling.get("reason"):
        return f"the gain from twice the images is unknown: {doubling['reason']}"
    metric = MAIN[task]
    scale, unit, digits = (100, " points", 1) if metric.percent else (1, "", 3)
    gain, low, high = (f"{scale * doubling[key]:.{digits}f}" for key in ("gain", "low", "high"))
    return f"twice the images would give the head {gain}{unit} more {metric.title} ({low} to {high})"
