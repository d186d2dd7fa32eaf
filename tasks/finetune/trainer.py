"""Training by gradient descent. B images a step (of all processes together), K classes, D features.

A step gives the same result however often training is interrupted and however many processes share it: the order of
the images, their views and how they are mixed depend only on the seed, the epoch and the step; each process has a share
of each step's images; gradients, random numbers and the statistics of batch norm are those of the whole step.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..common.core.errors import GraftError
from ..common.core.progress import progress, say
from ..common.heads.linear import LinearHead
from . import batchnorm_folding, mixing
from .auto_rules import Plan
from .batches import Array, Feed, Images, Ints, batches, split
from .checkpoint import Course, load_checkpoint, save_checkpoint
from .clock import Clock
from .judging import judged as epoch_judged
from .judging import told, told_of_trials
from .loss import Goal
from .network_parts import autocast, linear
from .optimizer import WeightAverage, make_optimizer, rate_at
from .param_groups import groups, thaw
from .params import FinetuneParams
from .scaling import scaled_loss
from .schedule import Schedule
from .team import Team
from .whole_step import WholeStep

TOGETHER = 4
"""Steps after which processes agree whether a checkpoint is due."""

WARM = 2
"""Steps before the clock starts: in the first ones torch allocates what it keeps."""

MEASURED, MEASURED_SECONDS, MOST_MEASURED = 5, 4.0, 100
"""Steps from which the duration is predicted: this many at least, and up to the last number if they fit into these
seconds."""


class Trainer:
    """A network with a linear last layer, trained end to end.

    Args:
        body: gives (B, D). Parameters without gradient are not trained.
        last: (weight (K, D), bias (K,)), where the last layer starts.
        feed: turns loaded images into the network's input.
        example: an input of two images.
        goal: the loss, and what the outputs mean.
    """

    def __init__(
        self,
        body: nn.Module,
        last: tuple[Array, Array],
        feed: Feed,
        example: torch.Tensor,
        params: FinetuneParams,
        plan: Plan,
        goal: Goal,
    ) -> None:
        torch.manual_seed(params.seed)
        self.params, self.plan, self.goal, self._feed = params, plan, goal, feed
        self._team = Team()
        self.device = self._team.device
        self.network = nn.Sequential(body, linear(*last)).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if plan.batch_norm == "frozen" and params.trained != "norm":  # there, weights need no gradient
            batchnorm_folding.fold(self.network, example.to(self.device))
        self._groups = groups(body, self.network[1], layer_decay=plan.layer_decay, weight_decay=params.weight_decay)
        self._optimizer = make_optimizer(params, self._groups)
        self._wrapped = self._team.share(self.network)
        self._is_plain = False
        self._saved: Callable[[Course], None] | None = None
        self._average = WeightAverage(self.network, plan.ema)

    @property
    def body(self) -> nn.Module:
        return self.network[0]

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes for all."""
        return self._team.is_main

    @property
    def is_alone(self) -> bool:
        return self._team.is_alone

    def seconds(self, train: Images, inner: Images) -> tuple[float, float]:
        """How long the choice of the rate and an epoch would take, measured on real steps whose effect is undone."""
        seen = self._steps(train) * min(self.params.batch_size, len(train))
        each, judging = 1 / self.rate(train, seconds=MEASURED_SECONDS), self._judging_seconds(inner)
        trial = seen * self.plan.trial_steps(self._steps(train)) / self._steps(train) * each + judging
        return len(self.plan.tried_rates) * trial, seen * each + judging

    def _judging_seconds(self, inner: Images) -> float:
        few = Images(inner.load, *(one[: 2 * self.params.batch_size] for one in (inner.target, inner.weight_N)))
        if not len(few):
            return 0.0
        clock = Clock()
        self.output(few)
        clock.lap(len(few))
        return clock.seconds_each * len(inner)

    def rate(self, train: Images, steps: int = MEASURED, seconds: float = 0.0) -> float:
        """Images per second of a training step: the median of at least `steps` steps, and of more until `seconds` are
        over. The effect of all steps is undone."""
        size = self.params.batch_size
        order = np.resize(np.arange(len(train)), (WARM + MOST_MEASURED) * size)
        course, clock = self._new_course(), Clock()
        taken = self._team.batches(train.load, split(order, size), 0, course.parts)
        with self._undone(), closing(taken) as steps_taken:
            for number, (rows, batch) in enumerate(steps_taken):
                self._step(rows, batch, train, course, epoch=0, step=number, at=0.0)
                clock.lap(len(rows) if number >= WARM else 0)
                if number + 1 >= WARM + steps and clock.total() >= seconds:
                    break
        return 1 / clock.seconds_each

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """What the block trains is forgotten after it."""
        before, optimizer = copy.deepcopy(self.network.state_dict()), copy.deepcopy(self._optimizer.state_dict())
        average = [value.clone() for value in self._average.values]
        self._train_mode()
        try:
            yield
        finally:
            self.network.load_state_dict(before)
            self._optimizer.load_state_dict(optimizer)
            self._optimizer.zero_grad(set_to_none=True)
            self._average.values = average

    def _choose_rate(self, course: Course, train: Images, inner: Images) -> None:
        """Sets the course's rate: the best of `tried_rates` after a short training with each, whose rate falls to zero
        as in a whole one; or the plan's."""
        clock = Clock()
        rates = self.plan.tried_rates if len(inner) else ()
        if rates and self.is_main:
            say(f"finetune: trying {len(rates)} learning rates, {self.plan.trial_steps(self._steps(train))} steps each")
        course.trials = [{"rate": rate, "loss": self._trial(rate, train, inner)} for rate in rates]
        best = min(course.trials, key=lambda trial: trial["loss"], default={"rate": self.plan.learning_rate})
        course.rate = best["rate"]
        course.seconds = course.search = max(self._team.gather([clock.total()]))
        if course.trials and self.is_main:
            say(f"finetune: {told_of_trials(course)}")

    def _trial(self, rate: float, train: Images, inner: Images) -> float:
        """The loss on the inner split after a short training, infinite if that is not finite."""
        course, each = self._new_course(), self._steps(train)
        steps = self.plan.trial_steps(each)
        course.rate = rate
        with self._undone():
            for epoch in range(-(-steps // each)):
                rows_of = self._rows(train, epoch)[: steps - epoch * each]
                for step, (rows, batch) in enumerate(self._team.batches(train.load, rows_of, epoch, course.parts)):
                    self._step(rows, batch, train, course, epoch, step, (epoch * each + step + 1) / steps)
            loss = scaled_loss(self.output(inner), inner.target, inner.weight_N, self.goal.task)
        return loss if np.isfinite(loss) else float("inf")

    def _new_course(self) -> Course:
        return Course(parts=self.params.accumulate, schedule=Schedule(self.plan.epochs), rate=self.plan.learning_rate)

    def run(
        self,
        train: Images,
        inner: Images,
        checkpoint: Path,
        deadline_seconds: float | None,
        saved: Callable[[Course], None] | None = None,
    ) -> Course:
        """Trains until the epochs are done, the inner split stops improving, or the time is over; the network is then
        that of the best epoch, or of the last if there are no inner images. Each epoch's end plans the epochs that are
        left anew, so that they fit and the rate falls to zero within them.

        Args:
            inner: held out from training; choose the rate and the epoch.
            checkpoint: written every few minutes and after each epoch; training resumes from it if it exists.
            saved: called by one process after each.

        Raises:
            GraftError: not even one image at a time fits into memory.
        """
        self._saved = saved
        if deadline_seconds is not None:
            deadline_seconds = min(self._team.gather([deadline_seconds]))  # each has prepared for as long as it took
        course = self._resume(checkpoint)
        if course is None:
            course = self._new_course()
            self._choose_rate(course, train, inner)
            if course.trials:
                self._save(checkpoint, course)
        while not course.has_ended(self.plan):
            self._one_epoch(course, train, inner, checkpoint)
            if deadline_seconds is not None:
                left = deadline_seconds - course.seconds
                course.schedule = course.schedule.replanned(len(course.rows), self.plan.epochs, left, course.last_lap())
            course.has_ended(self.plan)  # so that the checkpoint says so
            self._save(checkpoint, course)
        batchnorm_folding.unfold(self.network)
        self.network.load_state_dict(course.best_state)
        return course

    def _one_epoch(self, course: Course, train: Images, inner: Images, checkpoint: Path) -> None:
        clock, epoch = Clock(course.seconds), len(course.rows)
        self._epoch(course, train, epoch, clock, checkpoint)
        with self._average.in_use():
            judged = epoch_judged(self.output(inner), inner, self.goal) if len(inner) else {}
            if course.is_best(judged):
                course.best_epoch = epoch
                state = self.network.state_dict()
                course.best_state = {name: value.detach().cpu().clone() for name, value in state.items()}
        train_loss = course.loss_sum / self._steps(train)
        course.rows.append({"epoch": epoch, "train_loss": train_loss, **judged})
        course.step, course.loss_sum = 0, 0.0
        course.seconds = max(
            self._team.gather([clock.total()])
        )  # the same for all processes, as it decides when they end
        course.laps.append(course.seconds)
        if self.is_main:
            say(f"finetune: {told(course, self.goal)}")

    def output(self, images: Images) -> npt.NDArray[np.float64]:
        """Probabilities (N, K), or numbers (N, 1), in evaluation mode."""
        self.network.eval()
        runs = split(self._team.own(len(images)), max(1, self.params.batch_size // self._team.processes))
        with torch.inference_mode():
            parts = [
                self.goal.output(self._logits(self.network, self._feed(batch, self.device)).float().cpu()).numpy()
                for _, batch in batches(images.load, runs, epoch=-1)
            ]
        return np.concatenate(self._team.gather(parts)).astype(np.float64)

    def head(self, classes: list[str]) -> LinearHead:
        linear: Any = self.network[1]
        weight, bias = linear.weight.detach().cpu().numpy(), linear.bias.detach().cpu().numpy()
        return self.goal.head(weight, bias, classes)

    def _epoch(self, course: Course, images: Images, epoch: int, clock: Clock, checkpoint: Path) -> None:
        self._train_mode()
        steps, saved, rows_of = self._steps(images), time.monotonic(), self._rows(images, epoch)[course.step :]
        before, total = course.loss_sum, torch.zeros((), device=self.device)
        with progress(f"finetune: epoch {epoch + 1}", len(images)) if self.is_main else nullcontext() as bar:
            for rows, batch in self._team.batches(images.load, rows_of, epoch, course.parts):
                at = course.schedule.at(epoch + (course.step + 1) / steps)
                total += self._step(rows, batch, images, course, epoch, course.step, at)
                course.step += 1
                if bar is not None:
                    bar.add(len(rows))
                if course.step < steps and self._is_due(saved, course.step):
                    course.loss_sum, course.seconds = (
                        before + self._team.sum(total),
                        max(self._team.gather([clock.total()])),
                    )
                    self._save(checkpoint, course)
                    saved = time.monotonic()
        course.loss_sum = before + self._team.sum(total)

    def _step(
        self, rows: Ints, batch: Array, images: Images, course: Course, epoch: int, step: int, at: float
    ) -> torch.Tensor:
        """The loss of this process's share of the step; `rows` are those of all processes.

        Args:
            at: which share of all steps is done after this one.
        """
        torch.manual_seed(hash((self.params.seed, epoch, step, self._team.process)) % 2**31)
        open_groups = thaw(self._groups, at) if self.params.unfreeze == "gradual" else [True] * len(self._groups)
        rate = rate_at(at, course.rate, self.params.warmup)
        for group, scale, trains in zip(self._optimizer.param_groups, self._groups, open_groups, strict=True):
            group["lr"] = rate * scale["lr_scale"] * trains
        while True:
            try:
                value = self._gradient(rows, batch, images, course.parts, epoch, step)
                break
            except (MemoryError, RuntimeError) as error:
                self._divide_steps(error, course, len(batch))
        for group, trains in zip(self._groups, open_groups, strict=True):
            if not trains:
                for parameter in group["params"]:
                    parameter.grad = None
        if self.params.clip_norm:
            trained = [parameter for group in self._groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(trained, self.params.clip_norm)
        self._optimizer.step()
        self._average.update(epoch * self._steps(images) + step)
        return value

    def _gradient(self, rows: Ints, batch: Array, images: Images, parts: int, epoch: int, step: int) -> torch.Tensor:
        """Sets the gradients and returns the loss, as `_step` does."""
        self._optimizer.zero_grad(set_to_none=True)
        pieces = self._team.pieces(len(rows), parts)
        mine = np.concatenate(pieces)
        x = self._feed(batch, self.device)
        target = torch.from_numpy(images.target[rows[mine]]).to(self.device)
        weight = images.weight_N[rows]
        mean = images.weight_N.mean()  # not the step's own, or an image of large weight would count for less
        weight_B = torch.from_numpy(weight[mine] / (mean * len(rows))).to(self.device, torch.float32)
        share_B = torch.ones_like(weight_B)
        rng = np.random.default_rng([self.params.seed, epoch, step])
        how = mixing.draw(len(rows), self.plan.mixup, self.plan.cutmix, rng)
        if how is not None:
            x, share_B = mixing.mix(x, how.part(mine))
        other = torch.from_numpy(mixing.partners(len(batch))).to(self.device)
        value, seed, stop = torch.zeros((), device=self.device), hash((self.params.seed, epoch, step)), 0
        for number, places in enumerate(pieces):
            piece, stop = slice(stop, stop + len(places)), stop + len(places)
            with self._team.apart(self._wrapped, last=number + 1 == len(pieces)):
                logits = self._training_logits(x[piece], places, len(rows), seed).float()
                loss_B = self.goal.loss(logits, target[piece])
                if how is not None:
                    mixed_B = self.goal.loss(logits, target[other[piece]])
                    loss_B = torch.lerp(mixed_B, loss_B, share_B[piece].to(loss_B.dtype))
                part = (loss_B * weight_B[piece]).sum()
                (part * self._team.processes).backward()  # type: ignore[no-untyped-call]  # gradients are the processes' mean
            value += part.detach()
        return value

    def _training_logits(self, x: torch.Tensor, places: Ints, count: int, seed: int) -> torch.Tensor:
        """Those of some images of a step, at these of its `count` places."""
        if self._is_plain:
            return self._logits(self._wrapped, x)
        with WholeStep(places, count, seed % 2**63, self._team.processes, self.device) as step:
            logits = self._logits(self._wrapped, x)
        self._is_plain = not step.used
        return logits

    def _divide_steps(self, error: Exception, course: Course, images: int) -> None:
        """Divides steps into twice as many parts if memory has run out; raises any other error again."""
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "t allocate memory" in str(error)):
            raise error
        self._optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if course.parts >= images or not self._team.is_alone:  # the other processes would wait for ever
            raise GraftError(
                "fine-tuning ran out of memory",
                got=f"{images} images per step in {course.parts} parts",
                todo="set a smaller `finetune.batch_size`, a larger `finetune.accumulate`, or `finetune.layers: "
                "last_stage`",
            ) from error
        course.parts *= 2
        say(f"finetune: out of memory; from here on each step's {images} images are divided into {course.parts} parts")

    def _logits(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with autocast(self.params.precision, self.device):
            logits: torch.Tensor = network(x)
        return logits

    def _train_mode(self) -> None:
        self.network.train()
        if self.plan.batch_norm == "frozen":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _steps(self, images: Images) -> int:
        """Steps per epoch; images that do not fill a step are seen in another epoch."""
        return max(1, len(images) // self.params.batch_size)

    def _rows(self, images: Images, epoch: int) -> list[Ints]:
        """The rows of each step of an epoch."""
        order = np.random.default_rng([self.params.seed, epoch]).permutation(len(images))
        size = min(self.params.batch_size, len(order))
        return split(order[: self._steps(images) * size], size)

    def _is_due(self, saved: float, step: int) -> bool:
        """Whether a checkpoint is due: all processes must agree, and asking them costs time."""
        late = time.monotonic() - saved > 60 * self.params.checkpoint_every
        return late if self.is_alone else step % TOGETHER == 0 and any(self._team.gather([late]))

    def _save(self, path: Path, course: Course) -> None:
        if self.is_main:
            save_checkpoint(path, self.network, self._average.values, self._optimizer, course)
            if self._saved is not None:
                self._saved(course)
        self._team.wait()

    def _resume(self, path: Path) -> Course | None:
        if not path.is_file():
            return None
        course = load_checkpoint(path, self.network, self._average.values, self._optimizer)
        if self.is_main and not course.ended:
            say(f"finetune: resuming after {course.position()}, from the checkpoint of an interrupted run")
        return course
