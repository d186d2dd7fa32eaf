"""Training by gradient descent. B images a step (of all processes together), K classes, D features.

A step is the same however often training is interrupted and among how many processes it is shared: the order of the
images, their views and how they are mixed follow from the seed, the epoch and the step alone; a process has a run of
each step's images; gradients are those of the whole step. Processes are Accelerate's: it needs nothing that timm does
not bring already, and leaves the loop to us.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..common.core.cores import cores
from ..common.core.errors import GraftError
from ..common.core.files import whole_file
from ..common.core.progress import progress, say
from ..common.data.task import MAIN
from ..common.engines.openvino import cpu_has_fast_bf16
from ..common.heads.linear import LinearHead
from ..common.scoring.main_metric import loss, main_metric
from . import batchnorm_folding, mixing
from .auto_rules import Plan
from .loss import Goal
from .param_groups import groups, thaw
from .params import FinetuneParams

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Loader = Callable[[int, int], Array]
"""(place of the image, epoch) -> what the network is fed with: uint8 (H, W, C), or float16 maps."""

Feed = Callable[[Array, torch.device], torch.Tensor]
"""Images as they were loaded, one after the other, as float32 (B, C, H, W) in the network's own measure."""

TOGETHER = 4
"""Processes agree on a checkpoint after so many steps."""

WARM = 2
"""Steps that are taken before the clock starts: the first ones make what torch keeps."""

MEASURED, MEASURED_SECONDS, MOST_MEASURED = 5, 4.0, 100
"""Steps by which the rest is predicted: so many, and where they are short as many more as fit into these seconds."""


@dataclass(frozen=True)
class Images:
    """Images for training or validation: how to load one, their targets (see `FeatureSet.targets`) and weights."""

    load: Loader
    target: Array
    weight_N: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.target)


@dataclass
class Course:
    """What happened, and where training stands; all of it is in a checkpoint.

    Attributes:
        rows: one an epoch.
        best_state: the network of the best epoch by validation loss.
        seconds: of training and validation, without what an interruption lost.
        laps: `seconds` as they were after each epoch.
        preparation: seconds before the first step, for what is computed only once.
        step, loss_sum: within the epoch under way.
        parts: into which a step's images are divided, as memory allows.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    laps: list[float] = field(default_factory=list)
    preparation: float = 0.0
    ended: str = ""
    step: int = 0
    loss_sum: float = 0.0
    parts: int = 1


class Trainer:
    """A network with a linear last layer, trained end to end.

    Args:
        body: gives (B, D). What of it takes no gradient is not trained.
        last: (weight (K, D), bias (K,)) where the last layer starts.
        feed: what makes input of images.
        example: an input of two images.
        goal: what the last layer's outputs are.
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
        self._world = Accelerator(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))
        self.device = self._world.device
        self.network = nn.Sequential(body, _linear(*last)).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if plan.batch_norm == "frozen" and params.trained != "norm":  # there, weights need no gradient
            batchnorm_folding.fold(self.network, example.to(self.device))
        self._groups = groups(
            body,
            self.network[1],
            layer_decay=plan.layer_decay,
            weight_decay=params.weight_decay,
        )
        self._optimizer = _optimizer(params, self._groups)
        self._wrapped = self._world.prepare_model(self.network)
        self._live = [value for value in self.network.state_dict().values() if value.is_floating_point()]
        self._average = [value.clone() for value in self._live] if plan.ema else []

    @property
    def body(self) -> nn.Module:
        return self.network[0]

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self._world.is_main_process

    @property
    def is_alone(self) -> bool:
        return bool(self._world.num_processes == 1)

    def seconds(self, train: Images, val: Images) -> float:
        """What all epochs would take, measured on real steps whose effect is undone."""
        size = self.params.batch_size
        few = Images(val.load, val.target[: 2 * size], val.weight_N[: 2 * size])
        clock = _Clock()
        self._output(few)
        clock.lap(len(few))
        seen = self._steps(train) * min(size, len(train))
        return self.plan.epochs * (seen / self.rate(train, seconds=MEASURED_SECONDS) + clock.seconds_each * len(val))

    def rate(self, train: Images, steps: int = MEASURED, seconds: float = 0.0) -> float:
        """Images per second of a training step, the median of so many whose effect is undone, and of more until so many
        seconds are over."""
        before, optimizer = copy.deepcopy(self.network.state_dict()), copy.deepcopy(self._optimizer.state_dict())
        average = [value.clone() for value in self._average]
        size = self.params.batch_size
        order = np.resize(np.arange(len(train)), (WARM + MOST_MEASURED) * size)
        course, clock = Course(parts=self.params.accumulate), _Clock()
        self._train_mode()
        with closing(self._batches(train.load, self._parts(order, size), epoch=0)) as batches:
            for number, (rows, batch) in enumerate(batches):
                self._step(rows, batch, train, course, epoch=0, step=number, at=0.0)
                clock.lap(len(rows) if number >= WARM else 0)
                if number + 1 >= WARM + steps and clock.total() >= seconds:
                    break
        self.network.load_state_dict(before)
        self._optimizer.load_state_dict(optimizer)
        self._optimizer.zero_grad(set_to_none=True)
        self._average = average
        return 1 / clock.seconds_each

    def run(self, train: Images, val: Images, checkpoint: Path, deadline_seconds: float | None) -> Course:
        """Trains until the epochs are done, validation stops improving, or another epoch would pass the deadline; the
        network is then that of the best epoch.

        Args:
            checkpoint: written now and then and after each epoch, and continued from if it is there.

        Raises:
            GraftError: one image a step is too much for the memory.
        """
        course = self._resume(checkpoint)
        while not self._has_ended(course, deadline_seconds):
            self._one_epoch(course, train, val, checkpoint)
            self._save(checkpoint, course)
        batchnorm_folding.unfold(self.network)
        self.network.load_state_dict(course.best_state)
        return course

    def _has_ended(self, course: Course, deadline_seconds: float | None) -> bool:
        """Looks at nothing but what is in a checkpoint, so that a resumed run ends where an undisturbed one does."""
        done = len(course.rows)
        patience = self.plan.patience
        if done == 0 or course.step:
            return False
        if done >= self.plan.epochs:
            course.ended = "all epochs done"
        elif done - 1 - course.best_epoch >= patience:
            course.ended = f"validation has not improved for {patience} epochs"
        elif deadline_seconds is not None and course.seconds * (done + 1) / done > deadline_seconds:
            course.ended = "another epoch would pass the time budget"
        else:
            return False
        return True

    def _one_epoch(self, course: Course, train: Images, val: Images, checkpoint: Path) -> None:
        clock, epoch = _Clock(course.seconds), len(course.rows)
        self._epoch(course, train, epoch, clock, checkpoint)
        main, task = MAIN[self.goal.task], self.goal.task
        with self._averaged():
            output = self._output(val)
            val_loss = loss(output, val.target, task, val.weight_N) / self.goal.unit
            figure = main_metric(output, val.target, task)
            if course.best_epoch < 0 or val_loss < course.rows[course.best_epoch]["val_loss"]:
                course.best_epoch = epoch
                state = self.network.state_dict()
                course.best_state = {name: value.detach().cpu().clone() for name, value in state.items()}
        train_loss = course.loss_sum / self._steps(train)
        course.rows.append({"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, f"val_{main.key}": figure})
        course.step, course.loss_sum, before = 0, 0.0, course.laps[-1] if course.laps else 0.0
        course.seconds = max(self._all(clock.total()))  # the same for all, who end by it
        course.laps.append(course.seconds)
        if self.is_main:
            say(
                f"finetune: epoch {epoch + 1} of {self.plan.epochs}: validation loss {val_loss:.4f}, "
                f"{main.title} {main.text(figure)}, {course.seconds - before:.0f} s"
            )

    def output(self, images: Images) -> npt.NDArray[np.float64]:
        """Probabilities (N, K), or numbers (N, 1), in evaluation mode."""
        return self._output(images)

    def _output(self, images: Images) -> npt.NDArray[np.float64]:
        self.network.eval()
        mine = np.array_split(np.arange(len(images)), self._world.num_processes)[self._world.process_index]
        size = max(1, self.params.batch_size // self._world.num_processes)
        pieces = [mine[start : start + size] for start in range(0, len(mine), size)]
        with torch.inference_mode():
            parts = [
                self.goal.output(self._logits(self.network, self._feed(batch, self.device)).float().cpu()).numpy()
                for _, batch in self._batches(images.load, pieces, epoch=-1)
            ]
        return np.concatenate(gather_object(parts)).astype(np.float64)

    def head(self, classes: list[str]) -> LinearHead:
        linear: Any = self.network[1]
        weight, bias = linear.weight.detach().cpu().numpy(), linear.bias.detach().cpu().numpy()
        return self.goal.head(weight, bias, classes)

    def _epoch(self, course: Course, images: Images, epoch: int, clock: _Clock, checkpoint: Path) -> None:
        self._train_mode()
        steps, saved = self._steps(images), time.monotonic()
        order = np.random.default_rng([self.params.seed, epoch]).permutation(len(images))
        size = min(self.params.batch_size, len(order))
        parts = self._parts(order[: steps * size], size)[course.step :]
        before, total = course.loss_sum, torch.zeros((), device=self.device)
        with progress(f"finetune: epoch {epoch + 1}", len(order)) if self.is_main else nullcontext() as bar:
            for rows, batch in self._batches(images.load, parts, epoch):
                at = (epoch * steps + course.step + 1) / (self.plan.epochs * steps)
                total += self._step(rows, batch, images, course, epoch, course.step, at)
                course.step += 1
                if bar is not None:
                    bar.add(size)
                if course.step < steps and self._is_due(saved, course.step):
                    course.loss_sum, course.seconds = before + self._sum(total), max(self._all(clock.total()))
                    self._save(checkpoint, course)
                    saved = time.monotonic()
        course.loss_sum = before + self._sum(total)

    def _step(
        self, rows: Ints, batch: Array, images: Images, course: Course, epoch: int, step: int, at: float
    ) -> torch.Tensor:
        """The loss of this process's share of the step; `rows` are those of all processes.

        Args:
            at: the share of all steps done after this one.
        """
        torch.manual_seed(hash((self.params.seed, epoch, step, self._world.process_index)) % 2**31)
        open_groups = thaw(self._groups, at) if self.params.unfreeze == "gradual" else [True] * len(self._groups)
        for group, scale, trains in zip(self._optimizer.param_groups, self._groups, open_groups, strict=True):
            group["lr"] = self._rate(at) * scale["lr_scale"] * trains
        while True:
            try:
                value = self._gradient(rows, batch, images, course.parts, epoch, step)
                break
            except (MemoryError, RuntimeError) as error:
                self._make_do(error, course, len(batch))
        for group, trains in zip(self._groups, open_groups, strict=True):
            if not trains:
                for parameter in group["params"]:
                    parameter.grad = None
        if self.params.clip:
            nn.utils.clip_grad_norm_([p for group in self._groups for p in group["params"]], self.params.clip)
        self._optimizer.step()
        if self._average:
            passed = epoch * self._steps(images) + step
            keep = min(self.plan.ema, (1 + passed) / (10 + passed))
            get_ema_multi_avg_fn(keep)(self._average, self._live, passed)  # type: ignore[no-untyped-call]
        return value

    def _gradient(self, rows: Ints, batch: Array, images: Images, parts: int, epoch: int, step: int) -> torch.Tensor:
        """Sets the gradients; the loss, as in `_step`."""
        self._optimizer.zero_grad(set_to_none=True)
        mine = _share(len(rows), self._world.process_index, self._world.num_processes)
        x = self._feed(batch, self.device)
        target = torch.from_numpy(images.target[rows[mine]]).to(self.device)
        weight = images.weight_N[rows]
        weight_B = torch.from_numpy(weight[mine] / weight.sum()).to(self.device, torch.float32)
        share_B = torch.ones_like(weight_B)
        rng = np.random.default_rng([self.params.seed, epoch, step])
        how = mixing.draw(len(rows), self.plan.mixup, self.plan.cutmix, rng)
        if how is not None:
            x, share_B = mixing.mix(x, how.part(mine))
        other = torch.from_numpy(mixing.partners(len(batch))).to(self.device)
        value = torch.zeros((), device=self.device)
        pieces = [_share(len(batch), number, parts) for number in range(parts)]
        pieces = [piece for piece in pieces if piece.stop > piece.start]
        for number, piece in enumerate(pieces):
            waits = self._world.no_sync(self._wrapped) if number + 1 < len(pieces) else nullcontext()
            with waits:
                logits = self._logits(self._wrapped, x[piece]).float()
                loss_B = self.goal.loss(logits, target[piece])
                if how is not None:
                    mixed_B = self.goal.loss(logits, target[other[piece]])
                    loss_B = torch.lerp(mixed_B, loss_B, share_B[piece].to(loss_B.dtype))
                part = (loss_B * weight_B[piece]).sum()
                (part * self._world.num_processes).backward()  # gradients are the mean of the processes'
            value += part.detach()
        return value

    def _make_do(self, error: Exception, course: Course, images: int) -> None:
        """Divides steps into twice as many parts if memory has run out, and raises any other error again."""
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "t allocate memory" in str(error)):
            raise error
        self._optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if course.parts >= images or self._world.num_processes > 1:  # the others would wait for ever
            raise GraftError(
                "memory has run out in fine-tuning",
                got=f"{images} images a step in {course.parts} parts",
                todo="set a smaller `finetune.batch_size`, a larger `finetune.accumulate`, or `finetune.layers: "
                "last_stage`",
            ) from error
        course.parts *= 2
        say(f"finetune: memory has run out; each step's {images} images go in {course.parts} parts from here on")

    def _logits(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            logits: torch.Tensor = network(x)
        return logits

    def _autocast(self) -> AbstractContextManager[Any]:
        wanted = self.params.precision
        if wanted == "auto":
            fast = self.device.type == "cuda" or (self.device.type == "cpu" and cpu_has_fast_bf16())
            wanted = "bf16" if fast else "f32"
        return torch.autocast(self.device.type, torch.bfloat16) if wanted == "bf16" else nullcontext()

    def _train_mode(self) -> None:
        self.network.train()
        if self.plan.batch_norm == "frozen":
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averages in the place of the weights, within the block."""
        kept = [value.clone() for value in self._live] if self._average else []
        with torch.no_grad():
            for value, average in zip(self._live, self._average):
                value.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for value, back in zip(self._live, kept):
                    value.copy_(back)

    def _steps(self, images: Images) -> int:
        """An epoch's; what is left over by the last whole one is seen in another epoch."""
        return max(1, len(images) // self.params.batch_size)

    def _rate(self, at: float) -> float:
        """Linear up, then half a cosine down to nothing; `at` is the share of all steps done."""
        if at < self.params.warmup:
            return self.plan.learning_rate * (at / self.params.warmup)
        fall = (at - self.params.warmup) / (1 - self.params.warmup)
        return self.plan.learning_rate * 0.5 * (1 + math.cos(math.pi * fall))

    def _parts(self, order: Ints, size: int) -> list[Ints]:
        return [order[start : start + size] for start in range(0, len(order), size)]

    def _batches(self, load: Loader, parts: Sequence[Ints], epoch: int) -> Generator[tuple[Ints, Array], None, None]:
        """(rows of the step, this process's images of them) in order, the next ones loaded by threads meanwhile; in
        validation (epoch -1), all images of each part."""
        rank, count = (0, 1) if epoch < 0 else (self._world.process_index, self._world.num_processes)
        with ThreadPoolExecutor(cores(), thread_name_prefix="load") as pool:

            def feed(number: int) -> list[Any]:
                rows = parts[number]
                return [pool.submit(load, int(row), epoch) for row in rows[_share(len(rows), rank, count)]]

            ahead = [feed(number) for number in range(min(2, len(parts)))]
            for number, rows in enumerate(parts):
                batch = np.stack([future.result() for future in ahead.pop(0)])
                if number + 2 < len(parts):
                    ahead.append(feed(number + 2))
                yield rows, batch

    def _sum(self, value: torch.Tensor) -> float:
        """Over all processes."""
        return float(self._world.reduce(value, "sum"))

    def _all(self, value: Any) -> list[Any]:
        """What each process says."""
        return [value] if self.is_alone else gather_object([value])

    def _is_due(self, saved: float, step: int) -> bool:
        """Whether it is time for a checkpoint: no process may think so alone, and to ask all costs time."""
        late = time.monotonic() - saved > 60 * self.params.checkpoint_every
        return late if self.is_alone else step % TOGETHER == 0 and any(self._all(late))

    def _save(self, path: Path, course: Course) -> None:
        if self.is_main:
            state = {
                "network": self.network.state_dict(),
                "average": self._average,
                "optimizer": self._optimizer.state_dict(),
                "course": vars(course),
            }
            with whole_file(path) as part:
                torch.save(state, part)
        self._world.wait_for_everyone()

    def _resume(self, path: Path) -> Course:
        if not path.is_file():
            return Course(parts=self.params.accumulate)
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self._average = state["average"]
        self._optimizer.load_state_dict(state["optimizer"])
        course = Course(**state["course"])
        if self.is_main and not course.ended:
            where = (
                f"step {course.step} of epoch {len(course.rows) + 1}" if course.step else f"epoch {len(course.rows)}"
            )
            say(f"finetune: going on after {where}, from the checkpoint of an interrupted run")
        return course


class _Clock:
    """Args:
    before: seconds that were spent earlier.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before, self._started = before, time.perf_counter()
        self._laps: list[float] = []
        self._last = self._started

    def total(self) -> float:
        return self._before + time.perf_counter() - self._started

    def lap(self, images: int) -> None:
        """Ends a lap in which so many images were seen; of none, it is not counted."""
        now = time.perf_counter()
        if images:
            self._laps.append((now - self._last) / images)
        self._last = now

    @property
    def seconds_each(self) -> float:
        """The laps' median."""
        return float(np.median(self._laps))


def _share(count: int, part: int, parts: int) -> slice:
    """Part number `part` of 0 ... count, never between two partners (see `mixing`)."""
    pairs = -(-count // 2)
    return slice(min(2 * (pairs * part // parts), count), min(2 * (pairs * (part + 1) // parts), count))


def _linear(weight_KD: Array, bias_K: Array) -> nn.Linear:
    k, d = weight_KD.shape
    linear = nn.Linear(d, k)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight_KD))
        linear.bias.copy_(torch.from_numpy(bias_K))
    return linear


def _optimizer(params: FinetuneParams, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    described = [{"params": group["params"], "weight_decay": group["weight_decay"]} for group in groups]
    if params.optimizer == "sgd":
        return torch.optim.SGD(described, lr=0.0, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(described, lr=0.0, fused=True)
