"""Batches of images, loaded by threads while the network works. B images per step, H x W pixels, C channels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..common.core.cores import cores

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Loader = Callable[[int, int], Array]
"""(position of the image, epoch) -> the network's input: uint8 (H, W, C), or float16 maps."""

Feed = Callable[[Array, torch.device], torch.Tensor]
"""A batch of loaded images -> float32 (B, C, H, W), normalised as the network expects."""

AHEAD = 2
"""Batches that are loaded in advance."""


@dataclass(frozen=True)
class Images:
    """Images for training or validation: how to load one, their targets (see `FeatureSet.targets`) and weights."""

    load: Loader
    target: Array
    weight_N: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.target)


def batches(
    load: Loader, steps: Sequence[Ints], epoch: int, mine: Callable[[int], Ints] = np.arange
) -> Generator[tuple[Ints, Array], None, None]:
    """(rows of the step, this process's share of their images), in order.

    Args:
        steps: the rows of each step, of all processes together.
        mine: which of so many rows are this process's.
    """
    with ThreadPoolExecutor(cores(), thread_name_prefix="load") as pool:

        def feed(number: int) -> list[Any]:
            rows = steps[number]
            return [pool.submit(load, int(row), epoch) for row in rows[mine(len(rows))]]

        ahead = [feed(number) for number in range(min(AHEAD, len(steps)))]
        for number, rows in enumerate(steps):
            batch = np.stack([future.result() for future in ahead.pop(0)])
            if number + AHEAD < len(steps):
                ahead.append(feed(number + AHEAD))
            yield rows, batch


def split(order: Ints, size: int) -> list[Ints]:
    """`order` in runs of `size` rows."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def share(count: int, part: int, parts: int) -> slice:
    """Part number `part` of 0 ... count; it never separates two partners (see `mixing`)."""
    pairs = -(-count // 2)
    return slice(min(2 * (pairs * part // parts), count), min(2 * (pairs * (part + 1) // parts), count))


def pieces(count: int, parts: int, process: int = 0, processes: int = 1) -> list[Ints]:
    """Which of a step's `count` images a process has in each of the parts into which the step is divided: all processes
    work on the same part at once. There are fewer parts where a process would have no image of one."""
    parts = max(1, min(parts, -(-count // 2) // processes))
    every = [np.arange(count)[share(count, part, parts)] for part in range(parts)]
    return [part[share(len(part), process, processes)] for part in every]
