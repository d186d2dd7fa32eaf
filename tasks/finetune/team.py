"""The processes that share a training. Accelerate runs them: it needs no package that timm does not need already, and
leaves the loop to us."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from .batches import Array, Ints, Loader, batches, pieces


class Team:
    """Attributes:
    process, processes: the number of this process, from 0, and how many there are.
    """

    def __init__(self) -> None:
        self._world = Accelerator(cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()))
        self.device: torch.device = self._world.device
        self.process, self.processes = int(self._world.process_index), int(self._world.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.process == 0

    @property
    def is_alone(self) -> bool:
        return self.processes == 1

    def share(self, network: nn.Module) -> nn.Module:
        """The network with gradients that are the mean of the processes'."""
        wrapped: nn.Module = self._world.prepare_model(network)
        return wrapped

    def apart(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Within the block gradients are only added up, unless this is the last part of the step."""
        return nullcontext() if last else self._world.no_sync(wrapped)

    def batches(
        self, load: Loader, steps: Sequence[Ints], epoch: int, parts: int
    ) -> Generator[tuple[Ints, Array], None, None]:
        """(rows of the step, this process's images of each of its parts, one part after the other)."""
        return batches(load, steps, epoch, lambda count: np.concatenate(self.pieces(count, parts)))

    def pieces(self, count: int, parts: int) -> list[Ints]:
        """This process's places in each part of a step, see `batches.pieces`."""
        return pieces(count, parts, self.process, self.processes)

    def own(self, count: int) -> Ints:
        """A run of `count` places, one run for each process."""
        return np.array_split(np.arange(count), self.processes)[self.process]

    def gather(self, parts: list[Any]) -> list[Any]:
        """The lists of all processes, one after the other."""
        return parts if self.is_alone else gather_object(parts)

    def sum(self, value: torch.Tensor) -> float:
        """Over all processes."""
        return float(self._world.reduce(value, "sum"))

    def wait(self) -> None:
        """Until all processes have come here."""
        self._world.wait_for_everyone()
