"""What is saved of a training under way, and how it is resumed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..common.core.files import whole_file
from .auto_rules import Plan
from .schedule import Schedule

VERSION = 3
"""Part of a checkpoint's name, to be raised whenever the same parameters make another training: what an older version
has left is then not resumed."""

COURSE = "course"
"""The key of the course in the file's header."""


@dataclass
class Course:
    """What happened so far, and where training stands; a checkpoint contains all of it.

    Attributes:
        rows: one per epoch.
        best_epoch: the epoch with the lowest loss on the inner split, from 0; -1 before the first.
        best_state: the network after that epoch.
        seconds: of all of it, without the time lost by an interruption.
        laps: `seconds` after each epoch.
        search: `seconds` before the first epoch, for the choice of the rate.
        rate: the peak rate; 0 before it is chosen.
        trials: each rate that was tried, with the loss on the inner split.
        schedule: see `Schedule`.
        preparation: seconds before the first step, for what is computed only once.
        ended: why training ended; empty while it runs.
        step, loss_sum: within the current epoch.
        parts: into how many parts a step's images are divided to fit into memory.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    laps: list[float] = field(default_factory=list)
    search: float = 0.0
    rate: float = 0.0
    trials: list[dict[str, float]] = field(default_factory=list)
    schedule: Schedule = field(default_factory=lambda: Schedule(1))
    preparation: float = 0.0
    ended: str = ""
    step: int = 0
    loss_sum: float = 0.0
    parts: int = 1

    def position(self) -> str:
        """Where training stands, in words."""
        return f"step {self.step} of epoch {len(self.rows) + 1}" if self.step else f"epoch {len(self.rows)}"

    def is_best(self, judged: dict[str, float]) -> bool:
        """Whether an epoch with these findings on the inner split is the best so far; without any, the last one is."""
        return not judged or self.best_epoch < 0 or judged["inner_loss"] < self.rows[self.best_epoch]["inner_loss"]

    def has_ended(self, plan: Plan) -> bool:
        """Sets `ended`. Depends only on what a checkpoint contains, so that a resumed run ends where an uninterrupted
        one does."""
        done, self.ended = len(self.rows), ""
        if done == 0 or self.step:
            return False
        if done >= min(plan.epochs, plan.stop or plan.epochs):
            self.ended = "all epochs done"
        elif done - 1 - self.best_epoch >= plan.patience:
            self.ended = f"held-out images have not improved for {plan.patience} epochs"
        elif done >= self.schedule.epochs:
            self.ended = "another epoch would pass the time budget"
        return bool(self.ended)

    def last_lap(self) -> float:
        """Seconds of the last epoch."""
        before = self.laps[-2] if len(self.laps) > 1 else self.search
        return self.laps[-1] - before


def save_checkpoint(
    path: Path, network: nn.Module, average: list[torch.Tensor], optimizer: torch.optim.Optimizer, course: Course
) -> None:
    """One safetensors file: the tensors, and the course as JSON in its header."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"average.{number}": value for number, value in enumerate(average)}
    tensors |= {f"best.{name}": value for name, value in course.best_state.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    facts = {**vars(course), "schedule": vars(course.schedule)}
    del facts["best_state"]
    with whole_file(path) as part:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            part,
            {COURSE: json.dumps(facts)},
        )


def load_checkpoint(
    path: Path, network: nn.Module, average: list[torch.Tensor], optimizer: torch.optim.Optimizer
) -> Course:
    """Sets the network, the moving averages of its weights, and the optimizer."""
    tensors = load_file(path)
    network.load_state_dict(_below("network.", tensors))
    for number, mine in enumerate(average):
        mine.copy_(tensors[f"average.{number}"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": _states(optimizer, _below("optimizer.", tensors))})
    return replace(read_course(path), best_state=_below("best.", tensors))


def read_course(path: Path) -> Course:
    """Where a training stands, without its tensors."""
    with safe_open(path, framework="np") as file:
        facts: dict[str, Any] = json.loads(file.metadata()[COURSE])
    return Course(**{**facts, "schedule": Schedule(**facts["schedule"])})


def _below(start: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}


def _states(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """What the optimizer keeps of each parameter, in the parameter's order in memory, which a fused step relies on."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for place, value in tensors.items():
        number, name = place.split(".", 1)
        parameter = parameters[int(number)]
        alike = value.shape == parameter.shape
        states.setdefault(int(number), {})[name] = torch.empty_like(parameter).copy_(value) if alike else value
    return states
