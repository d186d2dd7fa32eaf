"""Training of the decoder, in torch. N images, B of a batch, C channels, H x W pixels, L maps.

AdamW (Loshchilov & Hutter 2019) with a warm-up and a cosine schedule (Loshchilov & Hutter 2017), in float32 on the
processor, on standardised maps. Of the epochs, the one with the smallest loss on held-out images is kept. Images are
learned by the mean squared error, which PSNR states; masks, whose marked pixels are few, by the cross-entropy and the
soft Dice loss (Milletari et al. 2016), in equal parts. Everything random comes from one seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..common.data.feature_set import Rows
from ..common.heads.base import Array
from ..common.heads.decoder import DecoderHead, Plan

WARMUP = 0.1
"""The share of the steps in which the rate rises."""

LEAST_MEAN = 0.1
"""The value of images from which training begins is at least this, and as far from 1: from empty masks, the gradient of
the Dice loss through the sigmoid would be too small to find the first marked pixels."""

CLIP = 1.0
"""The largest norm of a gradient (Pascanu et al. 2013): the few marked pixels of a batch may give a very large one."""

SMOOTH = 0.1
"""Pixels of an image that are added to both sides of the Dice loss, so that empty masks have one."""

FEWEST = 1e-6
"""Added to standard deviations: a channel may be constant."""


@dataclass(frozen=True)
class Lessons:
    """Maps and targets on disk, row by row.

    Attributes:
        maps_ND: float16.
        targets_NCHW: uint8, of images from 0 to 255, of masks 0 and 255.
    """

    maps_ND: npt.NDArray[np.float16]
    targets_NCHW: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Course:
    """How it is trained.

    Attributes:
        target: `image`, `mask` or `target`.
        epochs: passes over the images.
        batch_size: images a step.
        seed: another one gives another start and order.
    """

    target: str
    epochs: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    batch_size: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """After a pass over the images: the losses, and the decoder if it is the best so far."""

    train_loss: float
    held_loss: float
    head: DecoderHead | None


class Network:
    """The decoder of a plan with weights that are learned.

    Args:
        mean, scale: of the channels of each map, which are standardised with them.
    """

    def __init__(self, plan: Plan, mean: list[torch.Tensor], scale: list[torch.Tensor], seed: int) -> None:
        self.plan, self._mean, self._scale = plan, mean, scale
        random = torch.Generator().manual_seed(seed)
        self.weights = {name: _start(name, shape, random) for name, shape in plan.shapes().items()}

    def begin(self, mean: float) -> None:
        """From images of this value."""
        mean = min(max(mean, LEAST_MEAN), 1 - LEAST_MEAN)
        with torch.no_grad():
            self.weights["last.bias"].fill_(math.log(mean / (1 - mean)))

    def levels(self, maps_BD: Array) -> list[torch.Tensor]:
        """Standardised float32 (B, C, H, W) of each map."""
        parts = torch.split(torch.from_numpy(maps_BD), [c * h * w for c, h, w in self.plan.maps], dim=1)
        return [
            (part.float().view(-1, *shape) - mean) / scale
            for part, shape, mean, scale in zip(parts, self.plan.maps, self._mean, self._scale, strict=True)
        ]

    def __call__(self, maps_BD: Array) -> torch.Tensor:
        """Before the sigmoid, (B, C, H, W)."""
        plan, w, levels = self.plan, self.weights, self.levels(maps_BD)
        found: torch.Tensor | None = None
        for step, (height, wide, _) in enumerate(plan.steps):
            total = w[f"sum.{step}.bias"].view(1, -1, 1, 1)
            for i in plan.maps_at(step):
                total = total + functional.conv2d(levels[i], w[f"map.{i}.weight"])
            if found is not None:
                above = functional.conv2d(found, w[f"up.{step}.weight"])
                total = total + functional.interpolate(above, (height, wide), mode="bilinear", align_corners=False)
            found = functional.conv2d(total.relu(), w[f"step.{step}.weight"], w[f"step.{step}.bias"], padding=1).relu()
        assert found is not None
        pixels = functional.conv2d(found, w["last.weight"], w["last.bias"], padding=1)
        return functional.pixel_shuffle(pixels, plan.block)[:, :, : plan.image[1], : plan.image[2]]

    def head(self, target: str) -> DecoderHead:
        """With the standardisation in the weights."""
        found = {name: weight.detach().numpy().astype(np.float32, copy=True) for name, weight in self.weights.items()}
        for step in range(len(self.plan.steps)):
            for i in self.plan.maps_at(step):
                mean_C, scale_C = (each[i].numpy()[:, 0, 0].astype(np.float64) for each in (self._mean, self._scale))
                weight = found[f"map.{i}.weight"] / scale_C[:, None, None]
                shift = (weight[:, :, 0, 0] @ mean_C).astype(np.float32)
                found[f"map.{i}.weight"] = weight.astype(np.float32)
                found[f"sum.{step}.bias"] = found[f"sum.{step}.bias"] - shift
        return DecoderHead(self.plan, found, target)


def _start(name: str, shape: tuple[int, ...], random: torch.Generator) -> torch.Tensor:
    """He et al. 2015, for the ReLU that follows; the last layer small, so that images begin grey."""
    if len(shape) == 1:
        return torch.zeros(shape).requires_grad_()
    reach = (2 / math.prod(shape[1:])) ** 0.5 * (0.1 if name.startswith("last") else 1.0)
    return (torch.randn(shape, generator=random) * reach).requires_grad_()


def train(plan: Plan, lessons: Lessons, learned: Rows, held: Rows, course: Course) -> Iterator[Epoch]:
    """One epoch after the other.

    Args:
        learned, held: places in the lessons.
    """
    network = Network(plan, *_standard(plan, lessons.maps_ND, learned), course.seed)
    network.begin(_mean(lessons.targets_NCHW, learned))
    optimiser = torch.optim.AdamW(
        network.weights.values(), lr=course.learning_rate, weight_decay=course.weight_decay, fused=False
    )
    random, best = torch.Generator().manual_seed(course.seed), math.inf
    batches = -(-len(learned) // course.batch_size)
    for epoch in range(course.epochs):
        total = 0.0
        order = learned[torch.randperm(len(learned), generator=random).numpy()]
        for number, start in enumerate(range(0, len(order), course.batch_size)):
            _set_rate(optimiser, course, (epoch * batches + number + 1) / (course.epochs * batches))
            rows = np.sort(order[start : start + course.batch_size])
            loss = _loss(network(lessons.maps_ND[rows]), _target(lessons, rows), course.target)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(network.weights.values(), CLIP)
            optimiser.step()
            total += loss.item() * len(rows)
        held_loss = _held_loss(network, lessons, held, course)
        better = held_loss < best
        best = min(best, held_loss)
        yield Epoch(total / len(order), held_loss, network.head(course.target) if better else None)


def _set_rate(optimiser: Any, course: Course, done: float) -> None:
    """Args:
    done: the share of the steps, from 0 to 1.
    """
    rate = course.learning_rate * min(1.0, done / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
    for group in optimiser.param_groups:
        group["lr"] = rate


def _target(lessons: Lessons, rows: Rows) -> torch.Tensor:
    return torch.from_numpy(lessons.targets_NCHW[rows]).float() / 255


def _mean(targets_NCHW: Array, rows: Rows) -> float:
    return float(np.mean([targets_NCHW[row].mean() for row in rows.tolist()])) / 255


def _held_loss(network: Network, lessons: Lessons, held: Rows, course: Course) -> float:
    """Of all these images together: batches of masks without a marked pixel have no Dice of their own."""
    sums = torch.zeros(4, dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(held), course.batch_size):
            rows = held[start : start + course.batch_size]
            sums += _sums(network(lessons.maps_ND[rows]), _target(lessons, rows), course.target)
    return float(_of_sums(sums / len(held), course.target))


def _loss(pixels_BCHW: torch.Tensor, target_BCHW: torch.Tensor, target: str) -> torch.Tensor:
    """Of one batch. The Dice loss is of all its pixels together: some of its images may have none that is marked."""
    return _of_sums(_sums(pixels_BCHW, target_BCHW, target) / len(pixels_BCHW), target)


def _sums(pixels_BCHW: torch.Tensor, target_BCHW: torch.Tensor, target: str) -> torch.Tensor:
    """The parts of the loss, summed over images, (4,): its mean over pixels, and of masks the soft numbers of pixels
    that are found and marked, found, and marked; otherwise zeros."""
    p_BCHW = pixels_BCHW.sigmoid()
    if target != "mask":
        squared = ((p_BCHW - target_BCHW) ** 2).mean(dim=(1, 2, 3)).sum()
        return functional.pad(squared[None], (0, 3))
    entropy = functional.binary_cross_entropy_with_logits(pixels_BCHW, target_BCHW) * len(p_BCHW)
    return torch.stack([entropy, (p_BCHW * target_BCHW).sum(), p_BCHW.sum(), target_BCHW.sum()])


def _of_sums(sums_4: torch.Tensor, target: str) -> torch.Tensor:
    """The loss from the parts of one image on average."""
    mean, both, found, marked = sums_4
    if target != "mask":
        return mean
    return mean + 1 - (2 * both + SMOOTH) / (found + marked + SMOOTH)


def _standard(plan: Plan, maps_ND: Array, rows: Rows, block: int = 16) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Mean and standard deviation of the channels of each map, each (C, 1, 1), read block by block."""
    sums = [np.zeros((2, c)) for c, _, _ in plan.maps]
    stops = np.cumsum([c * h * w for c, h, w in plan.maps])
    for start in range(0, len(rows), block):
        maps_BD = maps_ND[rows[start : start + block]].astype(np.float32)
        for total, shape, stop in zip(sums, plan.maps, stops.tolist(), strict=True):
            level = maps_BD[:, stop - math.prod(shape) : stop].reshape(-1, *shape)
            total += np.stack([(level**power).sum(axis=(0, 2, 3), dtype=np.float64) for power in (1, 2)])
    mean, scale = [], []
    for total, (_, height, wide) in zip(sums, plan.maps, strict=True):
        first, second = total / (len(rows) * height * wide)
        mean.append(torch.from_numpy(first.astype(np.float32))[:, None, None])
        spread = np.sqrt(np.maximum(second - first**2, 0)) + FEWEST
        scale.append(torch.from_numpy(spread.astype(np.float32))[:, None, None])
    return mean, scale
