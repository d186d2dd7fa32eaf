"""All trainings of the stage: that of the compared network, those of the folds, and the refit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.core.paths import Paths
from ..common.core.progress import say
from ..common.data.feature_set import FeatureSet, Rows
from ..common.heads.base import Head
from .checkpoint import Course
from .decision import whether_it_fits
from .lessons import Lesson, fold_lessons, folds_of, main_lesson, refit_lesson
from .order import Elsewhere
from .params import FinetuneParams
from .scaling import Floats
from .session import Job, open_lesson
from .start import start_head


@dataclass(frozen=True)
class HeldOut:
    """Outputs of both models for images that neither has seen.

    Attributes:
        rows: of the feature set.
        folds: in how many folds they were held out; 0: they are the validation images.
    """

    rows: Rows
    head: Floats
    tuned: Floats
    folds: int


class Lecture:
    """Args:
        pack: with the weights of images and classes.
        facts: `selected.json`.
        elsewhere: trains for this process.

    Attributes:
        job: the training of the compared network.
        seconds: what the trainings have taken so far.

    Raises:
        CannotCut, WeightsError: see `Job`.
    """

    def __init__(
        self,
        params: FinetuneParams,
        pack: FeatureSet,
        facts: dict[str, Any],
        paths: Paths,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._params, self._pack, self._facts, self._paths = params, pack, facts, paths
        self._elsewhere = elsewhere
        self._main = main_lesson(pack, params.seed)
        self._folds = fold_lessons(pack, folds_of(params, pack), params.seed)
        self._budget: float | None = None
        self._checkpoints: list[Path] = []
        self.seconds = 0.0
        self.job = self._open(self._main)

    def plan(self) -> tuple[bool, str, float | None]:
        """(go, reason, predicted minutes). In mode `auto` there may then be fewer epochs, and no folds, so that all
        fits; the prediction, which costs seconds, is made only then."""
        if self._params.mode == "on":
            return True, "`finetune.mode` is on", None
        self._budget = 60 * self._params.budget_minutes
        planned, images = self.job.plan.epochs, len(self._main.known)
        cost = self.job.cost([*self._folds, *self._refit()])
        epochs, reason, minutes = whether_it_fits(self._params, planned, images, cost)
        if not epochs and self._folds and self._params.folds == "auto":
            self._folds = []
            epochs, reason, minutes = whether_it_fits(self._params, planned, images, self.job.cost(self._refit()))
        if 0 < epochs < planned:
            self._params = self._params.model_copy(update={"epochs": epochs})
            self.job = self._open(self._main)
        return epochs > 0, reason, minutes

    def learn(self) -> Course:
        """Trains the network that is compared."""
        return self._run(self.job, self._main, [*self._folds, *self._refit()])

    def held_out(self, head: Head) -> HeldOut:
        """After `learn`: the outputs for the validation images, or with folds for all of them.

        Args:
            head: of the training images.
        """
        if not self._folds:
            val = self._main.judged
            return HeldOut(val, head.output(self._pack.matrix(val)), self.job.output(val), 0)
        parts = [self._fold(number, lesson) for number, lesson in enumerate(self._folds)]
        rows, of_head, tuned = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(rows)
        return HeldOut(rows[order], of_head[order], tuned[order], len(self._folds))

    def _fold(self, number: int, lesson: Lesson) -> tuple[Rows, Floats, Floats]:
        """(rows, outputs of a head for them, outputs of a network), neither of which has seen them."""
        say(f"finetune: fold {number + 1} of {len(self._folds)}, for the comparison with the head")
        job = self._open(lesson)
        self._run(job, lesson, [*self._folds[number + 1 :], *self._refit()])
        head = start_head(self._pack, lesson.known, self._facts, self._paths)
        return lesson.judged, head.output(self._pack.matrix(lesson.judged)), job.output(lesson.judged)

    def refit(self, course: Course) -> Job:
        """Trains again on training and validation images: the epochs and the rate of `course`."""
        say("finetune: training again on training and validation images")
        job = self._open(
            refit_lesson(self._pack),
            self._params.model_copy(update={"learning_rate": course.rate, "epochs": course.schedule.epochs}),
            course.best_epoch + 1,
        )
        self.seconds += self._train(job, None, 1.0).seconds
        return job

    def forget(self) -> None:
        """Removes the checkpoints, once all is written."""
        for file in self._checkpoints:
            file.unlink(missing_ok=True)

    def _refit(self) -> list[Lesson]:
        return [refit_lesson(self._pack)] if self._params.refits else []

    def _open(self, lesson: Lesson, params: FinetuneParams | None = None, stop: int | None = None) -> Job:
        chosen = params or self._params
        return open_lesson(lesson, chosen, self._pack, self._facts, self._paths, stop, self._elsewhere)

    def _run(self, job: Job, lesson: Lesson, later: list[Lesson]) -> Course:
        """Within this training's share of the time that is left."""
        left = None if self._budget is None else max(self._budget - self.seconds, 0.0)
        mine = len(lesson.learned)
        course = self._train(job, left, mine / (mine + sum(len(other.learned) for other in later)))
        self.seconds += course.seconds + course.preparation
        return course

    def _train(self, job: Job, deadline_seconds: float | None, share: float) -> Course:
        self._checkpoints.append(job.checkpoint())
        return job.run(job.checkpoint(), deadline_seconds, share)
