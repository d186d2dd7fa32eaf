"""Whether to train all layers, and whether to keep what came out. Pure: figures in, a decision in words out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..common.errors import ParamsError
from ..common.task import LOSS, MAIN, Task
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
        ran: whether all layers were trained.
        chosen: the candidate to go on with, `head` or `finetune`.
        reason: one sentence.
        validation: candidate -> its score.
    """

    mode: str
    ran: bool
    chosen: str
    reason: str
    train_images: int
    budget_minutes: float
    validation: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "validation": {name: score.named() for name, score in self.validation.items()}}


def whether_to_train(
    params: FinetuneParams, train_images: int, predict_minutes: Callable[[], float]
) -> tuple[bool, str, float | None]:
    """(go, reason, predicted minutes); the prediction, which costs seconds, is asked for only when it matters."""
    if params.mode == "off":
        return False, "`finetune.mode` is off", None
    if params.mode == "on":
        return True, "`finetune.mode` is on", None
    if train_images < params.min_images:
        return False, f"{train_images} training images are fewer than `finetune.min_images`, {params.min_images}", None
    minutes = predict_minutes()
    spent = f"{params.epochs} epochs of {train_images} images would take"
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


def whether_to_keep(head: Score, finetuned: Score, keeps_promise: bool = True) -> tuple[str, str]:
    """(chosen, reason): the one with the larger main figure on validation, and on a tie with the smaller loss; but not
    one of which `head.max_error` cannot be promised, as it can of the head."""
    figures = (
        f"validation {MAIN[head.task].title} {finetuned.main:.4f} against the frozen head's {head.main:.4f}, "
        f"{LOSS[head.task].replace('_', ' ')} {finetuned.loss:.4f} against {head.loss:.4f}"
    )
    if (finetuned.main, -finetuned.loss) > (head.main, -head.loss):
        if not keeps_promise:
            return "head", f"fine-tuned is better, but of it `head.max_error` cannot be promised: {figures}"
        return "finetune", f"fine-tuned is better: {figures}"
    return "head", f"fine-tuned is not better: {figures}"
