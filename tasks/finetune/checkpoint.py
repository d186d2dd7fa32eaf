"""What is saved of a training under way, and how it is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..common.core.files import whole_file


@dataclass
class Course:
    """What happened so far, and where training stands; a checkpoint contains all of it.

    Attributes:
        rows: one per epoch.
        best_epoch: the epoch with the lowest validation loss, from 0; -1 before the first.
        best_state: the network after that epoch.
        seconds: of training and validation, without the time lost by an interruption.
        laps: `seconds` after each epoch.
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
    preparation: float = 0.0
    ended: str = ""
    step: int = 0
    loss_sum: float = 0.0
    parts: int = 1

    def position(self) -> str:
        """Where training stands, in words."""
        return f"step {self.step} of epoch {len(self.rows) + 1}" if self.step else f"epoch {len(self.rows)}"


def save_checkpoint(
    path: Path, network: nn.Module, average: list[torch.Tensor], optimizer: torch.optim.Optimizer, course: Course
) -> None:
    state = {
        "network": network.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
        "course": vars(course),
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
    return state["average"], Course(**state["course"])
