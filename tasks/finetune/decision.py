"""Whether to train the backbone, and whether to keep the result. Pure: metrics in, a decision in words out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..common.core.errors import ParamsError
from ..common.data.task import LOSS, MAIN, Task
from ..common.scoring.significance import mid_p
from .params import FinetuneParams


@dataclass(frozen=True)
class Score:
    """The task's main metric and loss (see `task.py`) on the validation images."""

    main: float
    loss: float
    task: Task = "classification"

    def named(self) -> dict[str, float]:
        return {MAIN[self.task].key: self.main, LOSS[self.task]: self.loss}


@dataclass(frozen=True)
class Decision:
    """The content of decision.json. It contains no measured time, so that the same decision gives the same file.

    Attributes:
        ran: whether layers of the backbone were trained.
        chosen: the candidate that later stages use, `head` or `finetune`.
        reason: one sentence.
        validation: candidate -> its score.
        p: of the paired test against the hypothesis that the fine-tuned model is no better; none if it did not run.
        more_images: what the head's learning curve predicts for twice the images.
        settled: the values that `auto` stands for.
    """

    mode: str
    ran: bool
    chosen: str
    reason: str
    train_images: int
    budget_minutes: float
    validation: dict[str, Score]
    p: float | None = None
    more_images: str = ""
    settled: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "validation": {name: score.named() for name, score in self.validation.items()}}


def why_not(params: FinetuneParams, train_images: int, wrong: int | None, val_images: int) -> str:
    """Why `off` or `auto` does not train, where that is known without measuring; otherwise empty.

    Args:
        wrong: validation images that the frozen head gets wrong; none for a task without right and wrong.
    """
    if params.mode == "off":
        return "`finetune.mode` is off"
    if params.mode == "on":
        return ""
    if train_images < params.min_images:
        return f"{train_images} training images are fewer than `finetune.min_images`, {params.min_images}"
    if wrong is not None and mid_p(wrong, 0) > params.significance:
        return (
            f"the frozen head gets {wrong} of {val_images} validation images wrong: too few to show that even a model "
            "without errors is better"
        )
    return ""


def whether_it_fits(
    params: FinetuneParams, epochs: int, train_images: int, predict_minutes: Callable[[], float]
) -> tuple[bool, str, float | None]:
    """(go, reason, predicted minutes); the prediction, which costs seconds, is made only when it matters."""
    if params.mode == "on":
        return True, "`finetune.mode` is on", None
    minutes = predict_minutes()
    spent = f"{epochs} epochs of {train_images} images would take"
    if minutes > params.budget_minutes:
        return False, f"{spent} longer than `finetune.budget_minutes`, {params.budget_minutes:g}, here", minutes
    return True, f"{spent} less than `finetune.budget_minutes`, {params.budget_minutes:g}, here", minutes


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


def whether_to_keep(
    head: Score, tuned: Score, p: float, significance: float, keeps_promise: bool = True
) -> tuple[str, str]:
    """(chosen, reason): the fine-tuned model if its main metric on validation is larger, and by more than chance
    explains; but not if it cannot guarantee `head.max_error`, as the head can."""
    metrics = (
        f"validation {MAIN[head.task].title} {tuned.main:.4f} against the frozen head's {head.main:.4f} (paired test: "
        f"p = {p:.2g}), {LOSS[head.task].replace('_', ' ')} {tuned.loss:.4f} against {head.loss:.4f}"
    )
    if tuned.main <= head.main:
        return "head", f"fine-tuned is not better: {metrics}"
    if p > significance:
        return "head", f"fine-tuned is better by no more than chance explains: {metrics}"
    if not keeps_promise:
        return "head", f"fine-tuned is better, but cannot guarantee `head.max_error`: {metrics}"
    return "finetune", f"fine-tuned is better: {metrics}"
