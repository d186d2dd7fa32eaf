"""What is saved of a training under way, and how it is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.core.files import whole_file
from .schedule import Schedule

VERSION = 2
"""Part of a checkpoint's name, to be raised whenever the same parameters make another training: what an older version
has left is then not resumed."""


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

    def last_lap(self) -> float:
        """Seconds of the last epoch."""
        before = self.laps[-2] if len(self.laps) > 1 else self.search
        return self.laps[-1] - before


def save_checkpoint(
    path: Path, network: nn.Module, average: list[torch.Tensor], optimizer: torch.optim.Optimizer, course: Course
) -> None:
    state = {
        "network": network.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
        "course": {**vars(course), "schedule": vars(course.schedule)},
    }
    with whole_file(path) as part:
        torch.save(state, part)


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[list[torch.Tensor], Course]:
    """Sets the network and the optimizer; returns (moving averages of the weights, course)."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    facts = state["course"]
    return state["average"], Course(**{**facts, "schedule": Schedule(**facts["schedule"])})
