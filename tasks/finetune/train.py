"""Training of the whole network. B images a step, K classes, D features, H x W pixels of C channels."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ..common.engine import cpu_has_fast_bf16
from ..common.files import whole_file
from ..common.heads import LinearHead
from ..common.images import EvalTransform, Pixels
from ..common.metrics import loss, main_figure
from ..common.progress import progress, say
from ..common.task import MAIN
from .goal import Goal
from .params import FinetuneParams

Ints = npt.NDArray[np.int64]
Loader = Callable[[int, int], Pixels]
"""(place of the image, epoch) -> uint8 (H, W, C)."""


@dataclass(frozen=True)
class Images:
    """Images to learn from or to validate on: how to load one, their targets (see `Pack.targets`), their weights."""

    load: Loader
    target: npt.NDArray[Any]
    weight_N: npt.NDArray[np.float64]


@dataclass
class Course:
    """What happened: a row an epoch, and the best weights by validation loss."""

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    ended: str = "all epochs done"


class Trainer:
    """A backbone with a linear head, trained end to end.

    Args:
        backbone: gives (B, D) from normalised (B, C, H, W).
        head: where the last layer starts.
        transform: for the normalisation.
        goal: what the last layer's outputs are.
    """

    def __init__(
        self, backbone: nn.Module, head: LinearHead, transform: EvalTransform, params: FinetuneParams, goal: Goal
    ) -> None:
        torch.manual_seed(params.seed)
        self.params, self.goal = params, goal
        self.device = _device()
        self.network = nn.Sequential(backbone, _linear(*goal.start(head))).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        scale = torch.tensor([255.0], device=self.device)
        self._mean = (torch.tensor(transform.mean, device=self.device) * scale).view(1, -1, 1, 1)
        self._std = (torch.tensor(transform.std, device=self.device) * scale).view(1, -1, 1, 1)
        self._optimizer = torch.optim.AdamW(_groups(self.network, params.weight_decay), lr=params.learning_rate)

    @property
    def backbone(self) -> nn.Module:
        return self.network[0]

    def seconds_per_image(self, images: Images, steps: int = 3) -> float:
        """Measured on real steps, whose effect is undone."""
        before = {name: value.clone() for name, value in self.network.state_dict().items()}
        optimizer = copy.deepcopy(self._optimizer.state_dict())
        order = np.arange(min(len(images.target), (steps + 1) * self.params.batch_size))
        self._train_mode()
        started, seen = 0.0, 0
        for step, (rows, pixels) in enumerate(self._batches(images.load, order, epoch=0, drop_last=False)):
            if step == 1 or len(order) <= self.params.batch_size:
                started, seen = started or time.perf_counter(), 0
            self._step(pixels, rows, images, rate=0.0)
            seen += len(rows)
        elapsed = time.perf_counter() - started
        self.network.load_state_dict(before)
        self._optimizer.load_state_dict(optimizer)
        return elapsed / max(seen, 1)

    def run(self, train: Images, val: Images, checkpoint: Path, deadline_seconds: float | None) -> Course:
        """Trains until the epochs are done, validation stops improving, or another epoch would pass the deadline.

        Args:
            checkpoint: written after each epoch, and continued from if it is there.
        """
        course = self._resume(checkpoint)
        total = self.params.epochs * self._steps(train)
        while not self._has_ended(course, deadline_seconds):
            self._one_epoch(course, train, val, total)
            self._save(checkpoint, course)
        self.network.load_state_dict(course.best_state)
        return course

    def _has_ended(self, course: Course, deadline_seconds: float | None) -> bool:
        """Looks at nothing but what is in a checkpoint, so that a resumed run ends where an undisturbed one does."""
        done = len(course.rows)
        if done == 0:
            return False
        if done >= self.params.epochs:
            course.ended = "all epochs done"
        elif done - 1 - course.best_epoch >= self.params.patience:
            course.ended = f"validation has not improved for {self.params.patience} epochs"
        elif deadline_seconds is not None and course.seconds * (done + 1) / done > deadline_seconds:
            course.ended = "another epoch would pass the time budget"
        else:
            return False
        return True

    def _one_epoch(self, course: Course, train: Images, val: Images, total: int) -> None:
        started, epoch = time.perf_counter(), len(course.rows)
        train_loss = self._epoch(train, epoch, total)
        main, task = MAIN[self.goal.task], self.goal.task
        output = self.output(val)
        val_loss = loss(output, val.target, task, val.weight_N) / self.goal.unit
        figure = main_figure(output, val.target, task)
        course.rows.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, f"val_{main.key}": figure})
        if course.best_epoch < 0 or val_loss < course.rows[course.best_epoch]["val_loss"]:
            course.best_epoch = epoch
            state = self.network.state_dict()
            course.best_state = {name: value.detach().cpu().clone() for name, value in state.items()}
        spent = time.perf_counter() - started
        course.seconds += spent
        say(
            f"finetune: epoch {epoch + 1} of {self.params.epochs}: validation loss {val_loss:.4f}, "
            f"{main.title} {figure:.4f}, {spent:.0f} s"
        )

    def output(self, images: Images) -> npt.NDArray[np.float64]:
        """Probabilities (N, K), or numbers (N, 1), in evaluation mode."""
        self.network.eval()
        order = np.arange(len(images.target))
        with torch.inference_mode():
            parts = [
                self.goal.output(self._logits(pixels).float().cpu()).numpy()
                for _, pixels in self._batches(images.load, order, epoch=-1, drop_last=False)
            ]
        return np.concatenate(parts).astype(np.float64)

    def head(self, classes: list[str]) -> LinearHead:
        linear: Any = self.network[1]
        weight, bias = linear.weight.detach().cpu().numpy(), linear.bias.detach().cpu().numpy()
        return self.goal.head(weight, bias, classes)

    def _epoch(self, images: Images, epoch: int, total: int) -> float:
        self._train_mode()
        order = np.random.default_rng([self.params.seed, epoch]).permutation(len(images.target))
        losses = []
        with progress(f"finetune: epoch {epoch + 1}", len(order)) as bar:
            for step, (rows, pixels) in enumerate(self._batches(images.load, order, epoch, drop_last=True)):
                rate = self._rate((epoch * self._steps(images) + step + 1) / total)
                losses.append(self._step(pixels, rows, images, rate))
                bar.add(len(rows))
        return float(np.mean(losses))

    def _step(self, pixels: Pixels, rows: Ints, images: Images, rate: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        target = torch.from_numpy(images.target[rows]).to(self.device)
        weight_B = torch.from_numpy(images.weight_N[rows]).to(self.device, torch.float32)
        loss_B = self.goal.loss(self._logits(pixels).float(), target)
        mean = (loss_B * weight_B).sum() / weight_B.sum()
        self._optimizer.zero_grad(set_to_none=True)
        mean.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimizer.step()
        return float(mean.detach())

    def _logits(self, pixels: Pixels) -> torch.Tensor:
        x_BCHW = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        with self._autocast():
            logits: torch.Tensor = self.network((x_BCHW - self._mean) / self._std)
        return logits

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self.params.precision
        if wanted == "auto":
            wanted = (
                "bf16" if self.device.type == "cuda" or (self.device.type == "cpu" and cpu_has_fast_bf16()) else "f32"
            )
        return torch.autocast(self.device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()

    def _train_mode(self) -> None:
        self.network.train()
        if self.params.batch_norm == "frozen":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _steps(self, images: Images) -> int:
        return max(1, len(images.target) // self.params.batch_size)

    def _rate(self, at: float) -> float:
        """Linear up, then half a cosine down to nothing; `at` is the share of all steps done."""
        if at < self.params.warmup:
            return self.params.learning_rate * (at / self.params.warmup)
        fall = (at - self.params.warmup) / (1 - self.params.warmup)
        return self.params.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))

    def _batches(self, load: Loader, order: Ints, epoch: int, *, drop_last: bool) -> Iterator[tuple[Ints, Pixels]]:
        """Batches in order, the next ones decoded by threads meanwhile."""
        size = self.params.batch_size
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        if drop_last and len(parts) > 1 and len(parts[-1]) < size:
            parts.pop()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = [[pool.submit(load, int(row), epoch) for row in part] for part in parts[:2]]
            for number, rows in enumerate(parts):
                pixels = np.stack([future.result() for future in ahead.pop(0)])
                if number + 2 < len(parts):
                    ahead.append([pool.submit(load, int(row), epoch) for row in parts[number + 2]])
                yield rows, pixels

    def _save(self, path: Path, course: Course) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "course": vars(course),
        }
        with whole_file(path) as part:
            torch.save(state, part)

    def _resume(self, path: Path) -> Course:
        if not path.is_file():
            return Course()
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        course = Course(**state["course"])
        say(f"finetune: going on after epoch {len(course.rows)}, from the checkpoint of an interrupted run")
        return course


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _linear(weight_KD: npt.NDArray[Any], bias_K: npt.NDArray[Any]) -> nn.Linear:
    k, d = weight_KD.shape
    linear = nn.Linear(d, k)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight_KD))
        linear.bias.copy_(torch.from_numpy(bias_K))
    return linear


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay on matrices and filters only."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
