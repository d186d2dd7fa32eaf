"""Whether to train the backbone, and whether to keep what came out. Pure: figures in, a decision in words out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..common.core.errors import ParamsError
from ..common.data.task import LOSS, MAIN, Task
from ..common.scoring.significance import mid_p
from .params import FinetuneParams


@dataclass(frozen=True)
class Score:
    """The task's main figure and loss (see `task.py`) on the validation images."""

    main: float
    loss: float
    task: Task = "classification"

    def named(self) -> dict[str, float]:
        return {MAIN[self.task].key: self.main, LOSS[self.task]: self.loss}


@dataclass(frozen=True)
class Decision:
    """What decision.json says; nothing of it was measured by a clock, so that the same decision is the same file.

    Attributes:
        ran: whether layers of the backbone were trained.
        chosen: the candidate to go on with, `head` or `finetune`.
        reason: one sentence.
        validation: candidate -> its score.
        p: of the paired test that the fine-tuned is no better; none if it did not run.
        more_images: what the head's learning curve says of twice the images.
        settled: what the parameters' `auto` came to.
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
    """Why `off`, or `auto`, does not train, as far as that can be said without measuring; empty if it cannot.

    Args:
        wrong: of the validation images, by the frozen head; none for a task without right and wrong.
    """
    if params.mode == "off":
        return "`finetune.mode` is off"
    if params.mode == "on":
        return ""
    if train_images < params.min_images:
        return f"{train_images} training images are fewer than `finetune.min_images`, {params.min_images}"
    if wrong is not None and mid_p(wrong, 0) > params.significance:
        return (
            f"the frozen head has {wrong} of {val_images} validation images wrong, so few that even a flawless model "
            "could not be told from it"
        )
    return ""


def whether_it_fits(
    params: FinetuneParams, epochs: int, train_images: int, predict_minutes: Callable[[], float]
) -> tuple[bool, str, float | None]:
    """(go, reason, predicted minutes); the prediction, which costs seconds, is asked for only when it matters."""
    if params.mode == "on":
        return True, "`finetune.mode` is on", None
    minutes = predict_minutes()
    spent = f"{epochs} epochs of {train_images} images would take"
    if minutes > params.budget_minutes:
        return False, f"{spent} more than `finetune.budget_minutes`, {params.budget_minutes:g}, here", minutes
    return True, f"{spent} less than `finetune.budget_minutes`, {params.budget_minutes:g}, here", minutes


def why_no_start(params: FinetuneParams, kind: str) -> str:
    """Why nothing can be trained from a head of this kind.

    Raises:
        ParamsError: it must be, by `finetune.mode: on`.
    """
    if params.mode == "on":
        raise ParamsError(
            "`finetune.mode` is on, but fine-tuning starts from a linear head",
            got=f"a head of kind {kind}, by `head.kind`",
            allowed="head.kind: auto | logistic | ridge",
            todo="set `head.kind: auto`, or `finetune.mode: off`",
        )
    return f"fine-tuning starts from a linear head; by `head.kind` it is of kind {kind}"


def more_images(doubling: dict[str, Any], task: Task) -> str:
    """What the head's learning curve (see `audit`) says of twice the images, as a sentence."""
    if doubling.get("reason"):
        return f"what twice the images would bring the head cannot be said: {doubling['reason']}"
    figure = MAIN[task]
    scale, unit, digits = (100, " points", 1) if figure.percent else (1, "", 3)
    gain, low, high = (f"{scale * doubling[key]:.{digits}f}" for key in ("gain", "low", "high"))
    return f"twice the images would bring the head {gain}{unit} of {figure.title} ({low} to {high})"


def whether_to_keep(
    head: Score, tuned: Score, p: float, significance: float, keeps_promise: bool = True
) -> tuple[str, str]:
    """(chosen, reason): the fine-tuned if its main figure on validation is larger, and by more than chance explains;
    but not if `head.max_error` cannot be promised of it, as it can of the head."""
    figures = (
        f"validation {MAIN[head.task].title} {tuned.main:.4f} against the frozen head's {head.main:.4f} (paired test: "
        f"p = {p:.2g}), {LOSS[head.task].replace('_', ' ')} {tuned.loss:.4f} against {head.loss:.4f}"
    )
    if tuned.main <= head.main:
        return "head", f"fine-tuned is not better: {figures}"
    if p > significance:
        return "head", f"fine-tuned is better by no more than chance explains: {figures}"
    if not keeps_promise:
        return "head", f"fine-tuned is better, but of it `head.max_error` cannot be promised: {figures}"
    return "finetune", f"fine-tuned is better: {figures}"
